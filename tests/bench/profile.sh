# One guest's requests to a disk in RAM, and packets between two guests, for the plugin that counts instructions.
. /files/marks.sh

export GUEST_FILES=/files/guest
start_driver_domain "memory = $DRIVER_DOMAIN_MEMORY"
echo "$VOLUME_BYTES cases=$CASES" >/files/guest/volume
make_guest guest cloud /files/disk.job "$(guest_disk "ram:$VOLUME_BYTES")" || fail "the guest could not be created"
answer_marks guest guest driver-domain
grep '^bench ' "$CONSOLES/guest-guest.log"

# net_guest NAME ADDRESS ROLE: a guest that does with netbench what ROLE says.
net_guest() {
    echo "$2 $3" >/files/guest/role
    make_guest "$1" cloud /files/net.job "$(guest_nic)" || fail "guest $1 could not be created"
}

net_guest peer 10.0.9.2 serve
net_guest net 10.0.9.1 'measure 10.0.9.2'
answer_marks net net peer driver-domain
grep '^bench ' "$CONSOLES/guest-net.log"
