# One guest that asks the driver domain for one register, over and over.
. /files/marks.sh

start_driver_domain
GUEST_FILES=/files/guest make_guest guest cloud /files/ioreq.job "$(guest_disk ram:1M)" || fail "the guest could not be created"
answer_marks guest guest driver-domain 0
grep '^bench ' "$CONSOLES/guest-guest.log"
