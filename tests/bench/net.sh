# Equal pairs of guests one after the other: on the driver domain's bridge, then on a bridge of Linux in Dom0 by Linux' own backend; a
# guest there with Dom0 itself; and a guest by each of the two with a station outside, beyond a physical NIC.
. /files/marks.sh

OURS=10.0.9
NETBACK=10.0.10
OURS_OUTSIDE=10.0.11
NETBACK_OUTSIDE=10.0.12
# Dom0's NICs: at the other end of the driver domain's; and one that is an uplink, with the other at its end.
OURS_STATION=52:54:00:00:01:00
NETBACK_UPLINK=52:54:00:00:01:01
NETBACK_STATION=52:54:00:00:01:02

# net_guest NAME ADDRESS ROLE LINE...: a guest that does with netbench what ROLE says.
net_guest() {
    local name=$1
    echo "$2 $3" >/files/guest/role
    make_guest "$name" cloud /files/net.job "${@:4}" || fail "guest $name could not be created"
}

# bench NAME BACKEND NET LINE: a guest measures with another, NAME-peer, both with LINE in their configuration.
bench() {
    local name=$1 backend=$2 net=$3 line=$4
    net_guest "$name-peer" "$net.2" serve "$line"
    net_guest "$name" "$net.1" "measure $net.2" "$line"
    answer_marks "$name" "$name" "$name-peer" "$backend"
    results "$name"
    wait_guest_message "$name-peer" "the job ended with status 0" || fail "guest $name-peer is not content"
    wait_domain_gone "$name-peer" || fail "guest $name-peer does not go away"
}

# results NAME: what guest NAME has measured.
results() {
    grep '^bench ' "$CONSOLES/guest-$1.log" | sed "s/^bench /bench guest=$1 /"
    grep -q "the job ended with status 0" "$CONSOLES/guest-$1.log" || fail "guest $1 is not content"
}

# nic_with MAC: the device with that address.
nic_with() {
    local device
    for device in /sys/class/net/*; do
        [ "$(cat "$device/address")" != "$1" ] || basename "$device"
    done
}

# station MAC ADDRESS: makes the NIC with that address of Ethernet a station outside, where netbench serves: it has a network namespace of its own,
# so that nothing of Dom0's reaches it but by wire.
station() {
    local device
    device=$(nic_with "$1")
    [ -n "$device" ] || fail "Dom0 has no NIC $1"
    unshare -n sleep 1000000 &
    local namespace=$!
    until [ "$(readlink "/proc/$namespace/ns/net")" != "$(readlink /proc/self/ns/net)" ]; do
        sleep 0.1
    done
    ip link set "$device" netns "$namespace"
    nsenter -t "$namespace" -n ip link set lo up
    nsenter -t "$namespace" -n ip link set "$device" up
    nsenter -t "$namespace" -n ip address add "$2/24" dev "$device"
    nsenter -t "$namespace" -n /files/guest/netbench serve &
    server=$!
}

# bench_outside NAME BACKEND NET LINE: a guest measures with the station.
bench_outside() {
    local name=$1 backend=$2 net=$3 line=$4
    net_guest "$name" "$net.1" "measure $net.2" "$line"
    answer_marks "$name" "$name" "$backend" 0
    results "$name"
    wait "$server" || fail "netbench of the station is not content"
}

load_more_modules || fail "Linux' backends cannot be loaded"
install -m 755 /files/vif-ready /tmp/vif-ready
export GUEST_FILES=/files/guest

# Without its NIC.
PASSTHROUGH= start_driver_domain
COUNTING=yes bench ours driver-domain "$OURS" "$(guest_nic)"

brctl addbr xenbr0
ip address add "$NETBACK.3/24" dev xenbr0
ip link set xenbr0 up
vif='vif = [ "bridge=xenbr0, script=/tmp/vif-ready" ]'
bench netback 0 "$NETBACK" "$vif"

/files/guest/netbench serve &
server=$!
net_guest netback-dom0 "$NETBACK.1" "measure $NETBACK.3" "$vif"
answer_marks netback-dom0 netback-dom0 0
results netback-dom0
wait "$server" || fail "netbench in Dom0 is not content"

xl destroy driver-domain
wait_domain_gone driver-domain || fail "the driver domain does not go away"
start_driver_domain "memory = 16"
station "$OURS_STATION" "$OURS_OUTSIDE.2"
COUNTING=yes bench_outside ours-outside driver-domain "$OURS_OUTSIDE" "$(guest_nic)"

uplink=$(nic_with "$NETBACK_UPLINK")
ip link set "$uplink" master xenbr0
ip link set "$uplink" up
station "$NETBACK_STATION" "$NETBACK_OUTSIDE.2"
bench_outside netback-outside 0 "$NETBACK_OUTSIDE" "$vif"
