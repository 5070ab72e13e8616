# Equal pairs of guests one after the other: on the driver domain's bridge, then on a bridge of Linux in Dom0 by Linux' own backend; and a
# guest there with Dom0 itself.
. /files/marks.sh

OURS=10.0.9
NETBACK=10.0.10

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

load_more_modules || fail "Linux' backends cannot be loaded"
install -m 755 /files/vif-ready /tmp/vif-ready
export GUEST_FILES=/files/guest

start_driver_domain
bench ours driver-domain "$OURS" "$(guest_nic)"

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
