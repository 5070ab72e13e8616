# What a driver domain takes: ours, and a Linux in its place with nothing but its own backends (linux_driver_domain.c). Files, the time until it
# serves, the least memory for one guest and for four, and what it takes as the memory of its guest grows. At last, what a process of Linux takes
# that maps all of a guest's memory, as backends for virtio do that are programs of Linux.

# Of the guests' disks, where they are in RAM.
VOLUME=1M

# linux_root: the initramfs of the Linux in our place, out of Dom0's modules, to /tmp/linux.root.
linux_root() {
    mkdir -p linux/dev linux/proc linux/modules
    cp /files/guest/linux_driver_domain linux/init
    local module
    for module in /modules/more/*.ko; do
        case $module in
        *-brd.ko | *-xen_blkback.ko | *-xen_netback.ko | *-llc.ko | *-stp.ko | *-bridge.ko) cp "$module" linux/modules ;;
        esac
    done
    (cd linux && find . | cpio -o -H newc 2>/dev/null) | gzip -9 >/tmp/linux.root
}

# linux_config MEMORY: the configuration of that Linux. Of its 64 MiB that are kept for large buffers (CMA) it needs none.
linux_config() {
    cat <<CONFIG
name = "linux"
kernel = "/bed/guest-cloud.kernel"
ramdisk = "/tmp/linux.root"
extra = "console=hvc0 quiet panic=1 rdinit=/init cma=0"
vcpus = 1
memory = $1
driver_domain = 1
on_crash = "destroy"
on_reboot = "destroy"
CONFIG
}

# ours_config KIND MEMORY: the configuration of the driver domain; KIND is `ours`, without devices, or `disk`, with them.
ours_config() {
    [ "$1" = disk ] || local PASSTHROUGH=
    driver_domain_config "memory = $2" 'extra = "ip=10.0.9.1/24"'
}

# start KIND MEMORY: starts one, named $backend, and waits until it serves; $ready_us is how long that took from `xl unpause` on.
start() {
    case $1 in
    linux) backend=linux; linux_config "$2" ;;
    *) backend=driver-domain; ours_config "$1" "$2" ;;
    esac >/tmp/backend.cfg
    fresh_console "$backend"
    xl create -p /tmp/backend.cfg || return
    local node=/local/domain/$(xl domid "$backend")/data/ready watch begin
    exec {watch}< <(exec xenstore-watch "$node" 2>/dev/null)
    local watcher=$! status=1
    read -r -u "$watch" _
    begin=${EPOCHREALTIME/./}
    xl unpause "$backend"
    if read -r -t 20 -u "$watch" _ && [ "$(xenstore-read "$node" 2>/dev/null)" = 1 ]; then
        ready_us=$((${EPOCHREALTIME/./} - begin))
        status=0
    fi
    kill "$watcher" 2>/dev/null
    exec {watch}<&-
    return "$status"
}

# guest KIND NUMBER [LINE...]: creates guest$NUMBER with a disk and a NIC.
guest() {
    local kind=$1 number=$2 lines
    shift 2
    case $kind in
    linux) lines=("disk = [ \"backend=linux, vdev=xvda, format=raw, access=rw, backendtype=phy, target=/dev/ram$((number - 1))\" ]"
        'vif = [ "backend=linux, bridge=xenbr0" ]') ;;
    disk) lines=("$(guest_disk "blk0:label=set$number")" "$(guest_nic)") ;;
    *) lines=("$(guest_disk "ram:$VOLUME")" "$(guest_nic)") ;;
    esac
    echo "$number" >key/number
    GUEST_FILES=key make_guest "guest$number" cloud /files/footprint.job "$@" "${lines[@]}"
}

# destroy_all: the guests, then who serves them.
destroy_all() {
    local name
    for name in guest{1..4} driver-domain linux; do
        xl domid "$name" >/dev/null 2>&1 || continue
        xl destroy "$name"
        wait_domain_gone "$name"
    done
}

# serves KIND COUNT MEMORY: whether so many guests are served at once with so much.
serves() {
    local number served
    start "$1" "$3" || return
    for number in $(seq "$2"); do
        guest "$1" "$number" || return
    done
    for number in $(seq "$2"); do
        served=$(grep -c "served so often" "$CONSOLES/guest-guest$number.log")
        # One that began when all were there already.
        wait_guest_message "guest$number" "served so often: $((served + 2))." 30 || return
    done
}

# tried KIND COUNT MEMORY: as `serves`, with the answer told and all removed again.
tried() {
    local answer=no
    (serves "$@") >log 2>&1 && answer=yes
    echo "bench name=try kind=$1 guests=$2 mib=$3 serves=$answer"
    [ "$answer" = yes ] || tail -3 log | sed 's/^/# /'
    destroy_all >/dev/null 2>&1
    [ "$answer" = yes ]
}

# least KIND COUNT GUESS: the least memory= with which so many are served, wherever that is: one less is not enough. From GUESS in growing steps
# to one that serves and one that does not, then by bisection between these.
least() {
    local kind=$1 count=$2 high=$3 low=$3 step=1
    if tried "$kind" "$count" "$high"; then
        while low=$((high - step)) step=$((2 * step)) && tried "$kind" "$count" "$low"; do
            high=$low
        done
    else
        while high=$((low + step)) step=$((2 * step)) && ! tried "$kind" "$count" "$high"; do
            low=$high
            [ "$step" -lt 256 ] || fail "$kind does not serve $count guests with $high MiB"
        done
    fi
    local middle
    while middle=$(((low + high) / 2)) && [ "$middle" -gt "$low" ]; do
        tried "$kind" "$count" "$middle" && high=$middle || low=$middle
    done
    echo "bench name=least kind=$kind guests=$count mib=$high"
}

# available KIND: what the Linux in our place has left, in KiB.
available() {
    local node=/local/domain/$(xl domid linux)/data answer report=$RANDOM$RANDOM
    xenstore-write "$node/report" "$report"
    for _ in $(seq 100); do
        answer=$(xenstore-read "$node/available" 2>/dev/null)
        [ "${answer%% *}" != "$report" ] || break
        sleep 0.1
    done
    echo "${answer##* }"
}

# served_memory KIND GUEST-MIB: what the backend takes, before and after a guest of so much memory has had it reach all of that.
served_memory() {
    local kind=$1 mib=$2 before after free
    cp /files/guest/sweep key/sweep
    guest "$kind" 1 "memory = $mib" || fail "a guest of $mib MiB could not be created"
    before=$(taken "$kind") free=$(xen_free_pages)
    wait_guest_message guest1 "guest: swept" 120 || fail "a guest of $mib MiB cannot have its memory reached"
    wait_guest_message guest1 "served so often: 1." 30 || fail "a guest of $mib MiB is not served"
    after=$(taken "$kind")
    echo "bench name=served kind=$kind mib=$mib swept_mib=$(guest_said guest1 "bench name=sweep mib=") before_$before after_$after" \
        "xen_pages=$((free - $(xen_free_pages)))"
    xl destroy guest1
    wait_domain_gone guest1
    rm key/sweep
}

# taken KIND: what the backend and Xen have left, as KEY=VALUE pairs after a prefix.
taken() {
    if [ "$1" = linux ]; then
        echo "kib=$(available)"
    else
        echo "pages=$(guest_pages driver-domain)"
    fi
}

# map_all MIB PIECE-MIB: Dom0's memory before, while, and after a process maps all of a guest's memory in such pieces, and what Xen takes for that;
# false when it cannot be mapped.
map_all() {
    local mib=$1 piece=$2 line free_before free_during process
    {
        guest_config mapped
        printf '%s\n' 'kernel = "/bed/guest-cloud.kernel"' "memory = $mib"
    } >/tmp/mapped.cfg
    xl create -p /tmp/mapped.cfg || fail "a guest of $mib MiB could not be created"
    free_before=$(xen_free_pages)
    coproc map { /files/guest/map_guest "$(xl domid mapped)" "$mib" "$piece"; }
    process=$map_PID
    read -r -u "${map[0]}" line
    free_during=$(xen_free_pages)
    echo 2>/dev/null >&"${map[1]}"
    wait "$process"
    # Until the pages that were freed are counted as free again.
    sleep 3
    echo "bench name=mapped mib=$mib piece=$piece $line after_kib=$(sed -n 's/^MemAvailable: *\([0-9]*\).*/\1/p' /proc/meminfo)" \
        "xen_pages=$((free_before - free_during))"
    xl destroy mapped
    wait_domain_gone mapped
    [[ $line != *error=* ]]
}

mkdir key
linux_root
echo "bench name=file what=ours bytes=$(stat -Lc %s /bed/driver-domain.img)"
echo "bench name=file what=linux-kernel bytes=$(stat -Lc %s /bed/guest-cloud.kernel)"
echo "bench name=file what=linux-initramfs bytes=$(stat -Lc %s /tmp/linux.root)"

for kind in ours linux; do
    [ "$kind" = ours ] && memory=16 || memory=256
    for _ in 1 2 3; do
        start "$kind" "$memory" >/dev/null || fail "$kind does not start"
        echo "bench name=start kind=$kind ready_us=$ready_us $(xen-facts domain "$(xl domid "$backend")")"
        destroy_all >/dev/null 2>&1
    done
done

for count in 1 4; do
    least disk "$count" 3
done
least ours 1 3
least ours 4 6
least linux 1 52
least linux 4 60

for kind in ours linux; do
    [ "$kind" = ours ] && memory=8 || memory=$LINUX_MIB
    start "$kind" "$memory" >/dev/null || fail "$kind does not start"
    for mib in $SERVED_MIB; do
        served_memory "$kind" "$mib"
    done
    destroy_all >/dev/null 2>&1
done

for mib in $SERVED_MIB; do
    map_all "$mib" "$mib" || map_all "$mib" "$PIECE_MIB"
done
exit 0
