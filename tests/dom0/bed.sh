# Functions for the scripts that run in Dom0; bash reads this file before the script.
#
# Whatever waits for xenstore is woken by it, and whatever waits for a file rests between two looks: without that it would take the one
# processor from the domains that the script waits for.

CONSOLES=/var/log/xen/console
# A function that calls itself by mistake ends with an error instead of never.
FUNCNEST=100

# fail MESSAGE: ends the script as failed.
fail() {
    echo "FAILED: $*"
    exit 1
}

# host NAME [WORD...]: has the host run tests/host/NAME.sh, or `start` or `kill` one of the services in the test's head; prints what it says, and
# has its status. One at a time.
host() {
    local id=$RANDOM$RANDOM status=1 line answers
    exec {answers}<>/run/host-answers
    printf '%s %s\n' "$id" "$*" >/run/host-requests
    while IFS= read -r -t 120 -u "$answers" line; do
        case $line in
        "$id end "*)
            status=${line##* }
            break
            ;;
        "$id "*) printf '%s\n' "${line#"$id "}" ;;
        esac
    done
    exec {answers}<&-
    return "$status"
}

# seconds_left START LIMIT: what is left of LIMIT seconds since START; false when nothing is.
seconds_left() {
    local left=$(($1 + $2 - SECONDS))
    [ "$left" -gt 0 ] && echo "$left"
}

# wait_node PATH VALUE [LIMIT]: waits until the xenstore node PATH holds VALUE.
wait_node() {
    local path=$1 value=$2 limit=${3:-30} start=$SECONDS left watch found=1
    exec {watch}< <(exec xenstore-watch "$path" 2>/dev/null)
    local watcher=$!
    while left=$(seconds_left "$start" "$limit") && read -r -t "$left" -u "$watch" _; do
        if [ "$(xenstore-read "$path" 2>/dev/null)" = "$value" ]; then
            found=0
            break
        fi
    done
    kill "$watcher" 2>/dev/null
    exec {watch}<&-
    return "$found"
}

# wait_file_text FILE TEXT [LIMIT] [END]: waits until FILE, which need not exist yet, holds TEXT; false as soon as it holds END only.
wait_file_text() {
    local file=$1 text=$2 limit=${3:-30} end=$4 start=$SECONDS ended
    # Nothing in Dom0 wakes us when a file changes.
    while :; do
        # The end is looked for first: what comes between the two looks is not missed.
        [ -n "$end" ] && grep -qF -- "$end" "$file" 2>/dev/null
        ended=$?
        grep -qF -- "$text" "$file" 2>/dev/null && return 0
        [ -n "$end" ] && [ "$ended" -eq 0 ] && return 1
        seconds_left "$start" "$limit" >/dev/null || return 1
        sleep 0.2
    done
}

# wait_guest_message NAME TEXT [LIMIT]: waits until the console of guest NAME shows TEXT; false as soon as the guest has powered off
# without it.
wait_guest_message() {
    wait_file_text "$CONSOLES/guest-$1.log" "$2" "${3:-60}" "reboot: Power down"
}

# wait_domain_gone NAME [LIMIT]: waits until there is no domain NAME, and Xen has nothing left of any domain that was destroyed.
# The last pages of one go when it is in no list any more, once all processors have passed by (RCU).
wait_domain_gone() {
    local name=$1 limit=${2:-30} start=$SECONDS left watch found=1
    exec {watch}< <(exec xenstore-watch @releaseDomain 2>/dev/null)
    local watcher=$!
    while left=$(seconds_left "$start" "$limit"); do
        if ! xl domid "$name" >/dev/null 2>&1 && [ "$(xen-facts dying)" = 0 ]; then
            found=0
            break
        fi
        read -r -t 2 -u "$watch" _
    done
    kill "$watcher" 2>/dev/null
    exec {watch}<&-
    local pages=
    until [ "$found" -ne 0 ] || [ "$(xen_free_pages)" = "$pages" ]; do
        pages=$(xen_free_pages)
        sleep 0.1
    done
    return "$found"
}

# fresh_console NAME: puts the console log of an earlier domain NAME aside, so that nobody takes its messages for the new one's.
fresh_console() {
    local log=$CONSOLES/guest-$1.log number=1
    [ -e "$log" ] || return 0
    while [ -e "$log.$number" ]; do
        number=$((number + 1))
    done
    mv "$log" "$log.$number"
}

# start_driver_domain [LINE...]: creates the driver domain, LINEs appended to its configuration, and waits until it serves.
start_driver_domain() {
    driver_domain_config "$@" >/tmp/driver-domain.cfg
    fresh_console driver-domain
    xl create /tmp/driver-domain.cfg || fail "the driver domain could not be created"
    wait_node "/local/domain/$(xl domid driver-domain)/data/ready" 1 30 || fail "the driver domain does not say that it is ready"
}

# driver_domain_config [LINE...]: the driver domain's configuration for this bed: its files are in /bed. On a machine with physical disks it
# is as users get it; else it has no devices, and memory for small volumes in RAM.
driver_domain_config() {
    local without=()
    [ -n "$PASSTHROUGH" ] || without=(-e '/^iomem/d' -e '/^irqs/d' -e '/^device_tree/d' -e 's/^memory.*/memory = 16/')
    sed -e 's|"driver-domain.img"|"/bed/driver-domain.img"|' -e 's|"passthrough.dtb"|"/bed/passthrough.dtb"|' "${without[@]}" \
        /bed/driver-domain.cfg
    [ $# -eq 0 ] || printf '%s\n' "$@"
}

# guest_config NAME: the configuration of a guest of this bed, without kernel, root and disk.
guest_config() {
    sed -e "s/^name = .*/name = \"$1\"/" -e '/^kernel/d' -e '/^ramdisk/d' -e '/^disk/d' -e '/^virtio/d' \
        -e 's|^extra = .*|extra = "console=hvc0 quiet panic=1 rdinit=/init"|' /bed/guest.cfg
}

# make_guest NAME FLAVOUR JOB [LINE...]: creates a guest with the kernel FLAVOUR (cloud or generic: Debian's; grants: ours with XEN_VIRTIO)
# that runs the shell script JOB (/dev/stdin will do) and powers off. LINEs are appended to its configuration; GUEST_FILES names a folder
# whose content it finds in /; GUEST_LAYER=net adds iperf3 and ethtool.
make_guest() {
    local name=$1 flavour=$2 job=$3 config=/tmp/$1.cfg root=/tmp/$1.root
    shift 3
    mkdir -p "/tmp/$name.job"
    [ -z "$GUEST_FILES" ] || cp -r "$GUEST_FILES/." "/tmp/$name.job"
    cat "$job" >"/tmp/$name.job/job" || return
    fresh_console "$name"
    # Linux takes several archives one after the other as one.
    (cat "/bed/guest-$flavour.root" ${GUEST_LAYER:+"/bed/layer-$GUEST_LAYER.root"} && cd "/tmp/$name.job" && find . | cpio -o -H newc 2>/dev/null) >"$root"
    guest_config "$name" >"$config"
    printf '%s\n' "kernel = \"/bed/guest-$flavour.kernel\"" "ramdisk = \"$root\"" "$@" >>"$config"
    create_domain "$name" "$config"
    local status=$?
    # The configuration and the root stay: xl reads them again when the guest reboots.
    rm -rf "/tmp/$name.job"
    return "$status"
}

# create_domain NAME CONFIG: creates the domain. xl waits for the backends of disks, not for those of NICs: one with NICs is paused until these
# are there, unless HASTY is set.
create_domain() {
    local name=$1 config=$2 nics nic
    if [ -n "$HASTY" ] || ! grep -q "^virtio" "$config"; then
        xl create "$config"
        return
    fi
    xl create -p "$config" || return
    nics=/local/domain/$(xl domid "$name")/device/virtio
    for nic in $(xenstore-list "$nics"); do
        wait_node "$(xenstore-read "$nics/$nic/backend")/state" 2 20 || return
    done
    xl unpause "$name"
}

# make_own_guest NAME IMAGE [LINE...]: creates a guest of our own, tests/guests/IMAGE, with LINEs appended to its configuration.
make_own_guest() {
    local name=$1 image=$2
    shift 2
    fresh_console "$name"
    guest_config "$name" >"/tmp/$name.cfg"
    printf '%s\n' "kernel = \"/bed/$image.img\"" "$@" >>"/tmp/$name.cfg"
    xl create "/tmp/$name.cfg"
}

# guest_disk TARGET [DEV]: the disk of a guest that the driver domain serves, for make_guest.
guest_disk() {
    echo "disk = [ \"backend=driver-domain, vdev=${2:-xvda}, specification=virtio, backendtype=standalone, format=raw, access=rw, grant_usage=0, target=$1\" ]"
}

# granting_disk TARGET [DEV]: the same with grant_usage=1: the driver domain reaches only the pages that the guest grants it.
granting_disk() {
    guest_disk "$@" | sed 's/grant_usage=0/grant_usage=1/'
}

# guest_nic [MAC]...: the NICs of a guest that the driver domain serves, for make_guest: one, or one for each MAC, in which - is any.
guest_nic() {
    local nics= mac
    for mac in "${@:--}"; do
        [ "$mac" = - ] && mac= || mac=/$mac
        nics+="\"backend=driver-domain, type=virtio,device1$mac, transport=mmio, grant_usage=0\", "
    done
    echo "virtio = [ ${nics%, } ]"
}

# granting_nic [MAC]...: the same with grant_usage=1.
granting_nic() {
    guest_nic "$@" | sed 's/grant_usage=0/grant_usage=1/g'
}

# guest_disks TARGET...: several of them: the first is xvda.
guest_disks() {
    local letters=abcd disks= target
    for target; do
        disks+="$(guest_disk "$target" "xvd${letters:0:1}" | sed 's/^disk = \[ //; s/ \]$//'), "
        letters=${letters:1}
    done
    echo "disk = [ ${disks%, } ]"
}

# refuses_disk TARGET SENTENCE: a guest with such a disk must not come to be, and SENTENCE must be told on the driver domain's console and in
# xenstore.
refuses_disk() {
    local target=$1 sentence=$2 watch path error=
    exec {watch}< <(exec xenstore-watch "/local/domain/$(xl domid driver-domain)/backend/virtio_disk")
    make_guest refused cloud /dev/null "$(guest_disk "$target")" &
    while [ -z "$error" ] && read -r -t 20 -u "$watch" path; do
        case $path in
        */error) error=$(xenstore-read "$path" 2>/dev/null) ;;
        esac
    done
    exec {watch}<&-
    wait $! && fail "a guest with the disk $target was created"
    case $error in
    *"$sentence"*) ;;
    *) fail "xenstore says '$error' of $target" ;;
    esac
    grep -qF "refused: target '$target': $sentence" "$CONSOLES/guest-driver-domain.log" || fail "the console says nothing of $target"
}

# refuses_nic MAC SENTENCE: a NIC with that address must not come to be, and SENTENCE must be told on the driver domain's console and in
# xenstore.
refuses_nic() {
    local mac=$1 sentence=$2 error
    fresh_console refused
    guest_config refused >/tmp/refused.cfg
    printf '%s\n' 'kernel = "/bed/guest-cloud.kernel"' "$(guest_nic "$mac")" >>/tmp/refused.cfg
    xl create -p /tmp/refused.cfg || fail "a guest with the NIC $mac could not even be created"
    error=$(xenstore-read "/local/domain/$(xl domid refused)/device/virtio/0/backend")/error
    wait_file_text "$CONSOLES/guest-driver-domain.log" "$sentence" 20 || fail "the console says nothing of $mac"
    case $(xenstore-read "$error") in
    *"$sentence"*) ;;
    *) fail "xenstore says '$(xenstore-read "$error")' of $mac" ;;
    esac
    xl destroy refused
    wait_domain_gone refused || fail "the refused guest does not go away"
}

# guest_said NAME TEXT: what stands behind TEXT in the last line of the guest's console that has it.
guest_said() {
    tr -d '\r' <"$CONSOLES/guest-$1.log" | sed -n "s/.*$2//p" | tail -1
}

# xen_free_pages: how many pages no domain has, exactly.
xen_free_pages() {
    xen-facts free-pages
}

# guest_pages NAME: how many pages guest NAME has, exactly.
guest_pages() {
    local facts
    facts=$(xen-facts domain "$(xl domid "$1")") && facts=${facts#pages=} && echo "${facts%% *}"
}

# what_is_left: what the driver domain said that it has, when the last guest went.
what_is_left() {
    grep -o "left: .*" "$CONSOLES/guest-driver-domain.log" | tail -1
}

# memory_report: what the driver domain answers when it is asked what it has, but for what it counts since it began.
memory_report() {
    local log=$CONSOLES/guest-driver-domain.log before answers start=$SECONDS
    before=$(grep -c "event channels open" "$log")
    xl sysrq driver-domain m
    until answers=$(grep -c "event channels open" "$log") && [ "$answers" -gt "$before" ]; do
        seconds_left "$start" 20 >/dev/null || fail "the driver domain does not say what it has"
        sleep 0.2
    done
    grep -E "physmap:|pager: [0-9]* slots|event channels open" "$log" | tail -3 | tr -d '\r' | sed -e 's/^\[[^]]*\] *//' -e 's/; Counters.*//'
}

# What the memory that the driver domain uses may differ by: lists keep the room that they once needed.
MEMORY_SLACK_BYTES=4096

# measure_memory TARGET: lets a guest with that disk come and go, and sets $memory to what is in use then, by the driver domain's own word and by
# Xen's, and $used to the bytes of RAM among it. RAM that the driver domain does not use is its or Xen's: it may give pages away to map others
# in their place; and what its heap has free is not in use, however large the heap has grown. The guest is the only one: with several, or several
# disks, the driver domain might still be at work for one when it speaks of another.
measure_memory() {
    make_guest measure cloud /dev/null "$(guest_disk "$1")" || fail "the guest to measure with could not be created"
    wait_guest_message measure "the job ended with status 0" || fail "the guest to measure with does not work"
    wait_domain_gone measure || fail "the guest to measure with does not go away"
    local left pages frames heap
    left=$(what_is_left)
    [[ $left =~ (.*),\ ([0-9]+)\ frames\ and\ ([0-9]+)\ bytes ]] || fail "the driver domain does not say what it has"
    pages=$(guest_pages driver-domain) frames=${BASH_REMATCH[2]} heap=${BASH_REMATCH[3]}
    memory="${BASH_REMATCH[1]}, $((pages + $(xen_free_pages))) pages its or free"
    used=$(((pages - frames) * 4096 - heap))
    echo "$memory, $pages its; $used bytes used, $heap of heap free"
}

# same_memory TARGET: fails when more or less is in use than when $memory was measured: something was leaked.
same_memory() {
    local before=$memory used_before=$used
    measure_memory "$1"
    [ "$memory" = "$before" ] || fail "before: $before; now: $memory"
    [ "$((used - used_before))" -le "$MEMORY_SLACK_BYTES" ] || fail "$used bytes of memory are used, before it were $used_before"
}

# destroy_in_the_middle FLAVOUR JOB DISK: a guest with kernel FLAVOUR and disk line DISK runs JOB, which says "guest: writing" and goes on
# writing, and is destroyed: without an error, within 2 seconds, and nothing of it stays.
destroy_in_the_middle() {
    local start took_ms
    make_guest writer "$1" "$2" "$3" || fail "the writer could not be created"
    wait_guest_message writer "guest: writing" || fail "the writer does not write"
    sleep 1
    start=${EPOCHREALTIME/./}
    xl destroy writer >destroy.log 2>&1 || fail "the writer cannot be destroyed: $(cat destroy.log)"
    took_ms=$(((${EPOCHREALTIME/./} - start) / 1000))
    grep -q "error" destroy.log && fail "xl destroy is not content: $(cat destroy.log)"
    [ "$took_ms" -lt 2000 ] || fail "xl destroy took $took_ms ms"
    echo "xl destroy took $took_ms ms"
    wait_domain_gone writer 5 || fail "the writer is a zombie"
    rm -f "$CONSOLES/guest-writer.log"
}

# load_more_modules: Linux' own backends, for scripts that compare with them.
load_more_modules() {
    local module
    for module in /modules/more/*.ko; do
        insmod "$module" || return
    done
}
