# promise: The driver domain's kernel crashes 20 times at random instructions under the I/O of two guests: it goes on each time, no request fails, nothing that was written durably is lost, and half of the pauses are below 20 ms.
# time: 600
# xen: release
# clock: instructions
# disk: empty 64M
# nic: user

ROUNDS=${CYCLES:-20}
# What a pause may be, from the end of one kernel until the next one serves every device: half of them, and each. The guests and
# Dom0, whose xenstored is asked, share the processor with us.
HALF_US=20000
EACH_US=200000
PATTERN_BYTES=4194304

# Three kinds of work at once: a pattern written and verified past the page cache; records, each durable before it is told; files from the other
# guest by HTTP, compared.
# job OWN OTHER: the job of the guest with address 10.9.0.OWN, whose neighbour is 10.9.0.OTHER.
job() {
    cat <<JOB
OTHER=10.9.0.$2
BYTES=$PATTERN_BYTES
. /net.sh
net_up 10.9.0.$1/24
JOB
    cat <<'JOB'
mkdir /tmp/www
seq 50000 >/tmp/www/file
httpd -h /tmp/www
fetch() {
    local count=0
    while :; do
        # A connection may be cut off by frames that were lost.
        wget -q -T 5 -O /tmp/got "http://$OTHER/file" || continue
        cmp -s /tmp/got /tmp/www/file || { echo "guest: another file than was sent"; return; }
        echo "guest: fetched $((count += 1))"
    done
}
record() {
    local count=0
    while :; do
        printf '%4095d\n' "$count" | tee -a /tmp/records >/tmp/record
        dd if=/tmp/record of=/dev/vda bs=4096 seek=$((BYTES / 4096 + count)) oflag=direct conv=notrunc,fsync 2>/dev/null || return
        echo "guest: recorded $((count += 1))"
        [ $((count % 10)) -eq 0 ] || continue
        dd if=/dev/vda bs=4096 skip=$((BYTES / 4096)) count="$count" iflag=direct 2>/dev/null | cmp - /tmp/records || return
        echo "guest: all are there, $count"
    done
}
patterns() {
    local count=0
    while pattern write /dev/vda "$((count % 256))" "$BYTES" && pattern verify /dev/vda "$((count % 256))" "$BYTES"; do
        echo "guest: verified $((count += 1))"
    done
}
fetch &
record &
patterns &
wait -n
echo "guest: one of them has ended"
JOB
}
job 1 2 >job-1
job 2 1 >job-2

# count GUEST WHAT: how often a guest has said that it has done that.
count() {
    grep -c "guest: $2" "$CONSOLES/guest-$1.log"
}
# goes_on GUEST WHAT TIMES: waits until a guest has done that so many times more.
goes_on() {
    local start=$SECONDS until=$(($(count "$1" "$2") + $3))
    until [ "$(count "$1" "$2")" -ge "$until" ]; do
        grep "guest: one of them has ended" "$CONSOLES/guest-$1.log" && fail "something has ended in $1"
        seconds_left "$start" 60 >/dev/null || fail "$1 does not go on: $2"
        sleep 0.1
    done
}

start_driver_domain 'memory = 32' 'extra = "sysrq=crash ip=10.9.0.9/24"'
make_guest one cloud job-1 "$(guest_disk blk0)" "$(guest_nic)" || fail "a guest could not be created"
make_guest two cloud job-2 "$(guest_disk ram:16M)" "$(guest_nic)" || fail "another guest could not be created"
for name in one two; do
    goes_on "$name" fetched 2
done
for round in $(seq "$ROUNDS"); do
    xl sysrq driver-domain c
    wait_file_text "$CONSOLES/guest-driver-domain.log" "goes on, for the $round. time" 20 || fail "the driver domain does not begin again"
    for name in one two; do
        goes_on "$name" verified 1
        goes_on "$name" recorded 2
        goes_on "$name" fetched 1
    done
done
for name in one two; do
    goes_on "$name" "all are there" 2
    tr -d '\r' <"$CONSOLES/guest-$name.log" | sed -n "s/^guest: all are there, \(.*\)/$name: \1 records were durable, and are there/p" | tail -1
done
grep -E "I/O error|another word|another file" "$CONSOLES"/guest-one.log "$CONSOLES"/guest-two.log && fail "a request failed"
pauses=$(tr -d '\r' <"$CONSOLES/guest-driver-domain.log" | sed -n 's/.*every device goes on, \([0-9]*\) us after.*/\1/p' | sort -n)
[ "$(echo "$pauses" | wc -l)" -eq "$ROUNDS" ] || fail "not every life says how long the pause was"
echo "pauses in us:" $pauses
[ "$(echo "$pauses" | sed -n "$((ROUNDS / 2))p")" -le "$HALF_US" ] || fail "half of the pauses are longer than $HALF_US us"
[ "$(echo "$pauses" | tail -1)" -le "$EACH_US" ] || fail "a pause was longer than $EACH_US us"
for name in one two; do
    xl destroy "$name" || fail "$name cannot be destroyed"
    wait_domain_gone "$name" || fail "$name does not go away"
done
