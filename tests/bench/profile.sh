# One guest's requests to a disk in RAM, for the plugin that counts instructions.
. /files/marks.sh

export GUEST_FILES=/files/guest
start_driver_domain "memory = $DRIVER_DOMAIN_MEMORY"
echo "$VOLUME_BYTES cases=$CASES" >/files/guest/volume
make_guest guest cloud /files/disk.job "$(guest_disk "ram:$VOLUME_BYTES")" || fail "the guest could not be created"
answer_marks guest guest driver-domain
grep '^bench ' "$CONSOLES/guest-guest.log"
