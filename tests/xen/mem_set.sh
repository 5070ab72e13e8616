# promise: A guest gives half of its memory back and takes it again, several times, under I/O: no request fails, Xen gets the pages at once although they were mapped, a guest beside it notices nothing.
# time: 600
# disk: file-sets 1 120M
# disk: empty 64M
# disk: empty 64M

MOST_MIB=512
LEAST_MIB=256
ROUNDS=3
# What the pages that Xen has may differ by: Linux gives and takes its pages in pieces.
SLACK_PAGES=256
STEP_PAGES=$(((MOST_MIB - LEAST_MIB) << 8))

# writer DEVICE: writes another pattern again and again past the page cache, and verifies it.
WRITER='
writer() {
    local round=0
    while [ -e /tmp/go ]; do
        round=$((round + 1))
        pattern write "$1" "$((round % 256))" 8388608 && pattern verify "$1" "$((round % 256))" 8388608 || return
        echo "guest: written and verified, $round"
    done
}
true >/tmp/go
'
cat >other <<JOB
$WRITER
writer /dev/vda
JOB
# One reads files through the page cache, and drops them all: what is given back was filled by us, and is mapped. One writes past the page cache.
# They end when the memory has gone and come as often as it will.
cat >job <<JOB
$WRITER
THRESHOLD_KIB=$(((MOST_MIB + LEAST_MIB) << 9))
ROUNDS=$ROUNDS
JOB
cat >>job <<'JOB'
reader() {
    while [ -e /tmp/go ]; do
        pattern verify-files 1 /mnt/[0-9]* || return
        echo 1 >/proc/sys/vm/drop_caches
    done
}
# memory_is less|more: whether it is that, compared to the middle.
memory_is() {
    local kib=$(awk '/^MemTotal:/ { print $2 }' /proc/meminfo)
    case $1 in
    less) [ "$kib" -lt "$THRESHOLD_KIB" ] ;;
    more) [ "$kib" -gt "$THRESHOLD_KIB" ] ;;
    esac
}
mount -t ext4 -o ro /dev/vda /mnt || exit
reader &
reader=$!
writer /dev/vdb &
writer=$!
for round in $(seq "$ROUNDS"); do
    for memory in less more; do
        until memory_is "$memory"; do
            sleep 0.5
            kill -0 "$reader" && kill -0 "$writer" || exit
        done
    done
done
# It works on with what it has again.
sleep 2
rm /tmp/go
wait "$reader" && wait "$writer"
JOB

# written NAME: how often guest NAME has written and verified its pattern.
written() {
    grep -c "guest: written and verified" "$CONSOLES/guest-$1.log"
}
# both_work_on: waits until both guests have done a round more that began after now.
both_work_on() {
    local name
    for name in guest other; do
        wait_guest_message "$name" "written and verified, $(($(written "$name") + 2))" || fail "$name does not work on"
    done
}
# wait_pages TEST PAGES: waits until the pages of the guest are -le or -ge PAGES. Linux gives what is free; each time that
# nothing is, it waits twice as long, up to 32 s.
wait_pages() {
    local start=$SECONDS
    until [ "$(guest_pages guest)" "$1" "$2" ]; do
        seconds_left "$start" 120 >/dev/null || fail "the guest has $(guest_pages guest) pages, which is not $1 $2"
        sleep 0.3
    done
    echo "in $((SECONDS - start)) s the guest has $(guest_pages guest) pages, $(xen_free_pages) are free"
}

start_driver_domain
# create NAME JOB LINE...
create() {
    local name=$1
    make_guest "$name" cloud "$2" "${@:3}" || fail "$name could not be created"
}
create warm-up /dev/null "$(guest_disks blk0:label=set1 blk1 blk2)"
wait_domain_gone warm-up || fail "warm-up does not go away"
measure_memory blk2

create other other "$(guest_disk blk2)"
# On Arm, xl mem-set of Xen 4.20 needs to be told what it takes for granted: without `acpi` an assertion of its fails, and without `type`, which
# means nothing here, it asks Xen for something that only x86 has.
create guest job 'acpi = 0' 'type = "pv"' "memory = $MOST_MIB" "$(guest_disks blk0:label=set1 blk1)"
wait_guest_message guest "guest: written and verified, 2" || fail "the guest does not work"
most=$(guest_pages guest)
for round in $(seq "$ROUNDS"); do
    free=$(xen_free_pages)
    xl mem-set guest "$LEAST_MIB" || fail "xl mem-set down"
    # What we held would still be the guest's.
    wait_pages -le "$((most - STEP_PAGES + SLACK_PAGES))"
    gained=$(($(xen_free_pages) - free))
    [ "$gained" -ge "$((STEP_PAGES - 2 * SLACK_PAGES))" ] || fail "Xen has only $gained pages more"
    both_work_on
    xl mem-set guest "$MOST_MIB" || fail "xl mem-set up"
    wait_pages -ge "$((most - SLACK_PAGES))"
    # After the last time it ends by itself.
    [ "$round" = "$ROUNDS" ] || both_work_on
done
wait_guest_message guest "the job ended with status 0" 90 || fail "the guest's job"
wait_domain_gone guest || fail "the guest does not go away"

# Nobody told the other one to end.
xl domid other >/dev/null || fail "the other guest has ended"
xl destroy other || fail "the other guest cannot be destroyed"
wait_domain_gone other || fail "the other guest does not go away"
grep -E "I/O error|pattern: .* another word" "$CONSOLES"/guest-guest.log "$CONSOLES"/guest-other.log && fail "a request failed"
grep -E " (WARN|ERROR) " "$CONSOLES/guest-driver-domain.log" && fail "the driver domain complains"
same_memory blk2
