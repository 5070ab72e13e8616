# How long a driver domain takes until it serves, and how long a guest waits for its disk.
#
# All times are of Dom0's clock, in microseconds: it is the same for all domains.

# begin_watch PATH: what changes below PATH is read from $watch from now on, with `next_change`.
begin_watch() {
    exec {watch}< <(exec xenstore-watch "$1" 2>/dev/null)
    watcher=$!
    read -r -u "$watch" _
}
next_change() {
    read -r -t 30 -u "$watch" changed && now=${EPOCHREALTIME/./}
}
end_watch() {
    kill "$watcher" 2>/dev/null
    exec {watch}<&-
}

# until_node PATH VALUE: waits until PATH holds VALUE; $now is the moment of that change.
until_node() {
    while next_change; do
        [ "$changed" = "$1" ] && [ "$(xenstore-read "$1" 2>/dev/null)" = "$2" ] && return
    done
    fail "$1 does not become $2"
}

# Domain numbers are given out one after the other.
last=0

# measure_driver_domain: creates one, and leaves it running as domain $driver.
measure_driver_domain() {
    driver=$((++last))
    begin_watch "/local/domain/$driver/data/ready"
    local start=${EPOCHREALTIME/./}
    xl create "$@" >/dev/null &
    local xl=$!
    until_node "/local/domain/$driver/data/ready" 1
    wait "$xl" || fail "the driver domain could not be created"
    end_watch
    echo "bench name=driver-domain ready_us=$((now - start)) $(xen-facts domain "$driver")"
}

# used_ns: the processor time of the driver domain so far.
used_ns() {
    xen-facts domain "$driver" | sed 's/.*cpu_ns=//'
}

# measure_guest: the disk of a new guest, which does not run: what it would do itself is not measured.
measure_guest() {
    local appeared= start used
    used=$(used_ns)
    begin_watch "/local/domain/$driver/backend"
    start=${EPOCHREALTIME/./}
    xl create -p /tmp/guest.cfg >/dev/null &
    local xl=$!
    while next_change; do
        [ -n "$appeared" ] || appeared=$now
        [[ $changed == */state ]] && [ "$(xenstore-read "$changed" 2>/dev/null)" = 2 ] && break
    done
    [[ $changed == */state ]] || fail "no disk came up"
    wait "$xl" || fail "the guest could not be created"
    end_watch
    xl=${EPOCHREALTIME/./}
    echo "bench name=guest connected_us=$((now - start)) backend_us=$((now - appeared)) xl_us=$((xl - start)) cpu_ns=$(($(used_ns) - used))"
    xl destroy guest
}

driver_domain_config >/tmp/driver-domain.cfg
{
    guest_config guest
    echo 'kernel = "/bed/guest-cloud.kernel"'
    guest_disk ram:1M
} >/tmp/guest.cfg
for _ in 1 2 3 4 5; do
    [ "$last" = 0 ] || xl destroy driver-domain
    measure_driver_domain /tmp/driver-domain.cfg
done
for _ in 1 2 3 4 5; do
    measure_guest
done
exit 0
