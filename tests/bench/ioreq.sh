# Guests that ask the driver domain for one register, over and over: Linux, and then one without an operating system.
. /files/marks.sh

start_driver_domain
GUEST_FILES=/files/guest make_guest guest cloud /files/ioreq.job "$(guest_disk ram:1M)" || fail "the guest could not be created"
answer_marks guest guest driver-domain 0
grep '^bench ' "$CONSOLES/guest-guest.log"

# Once off it stays, so that Xen still tells its processor time.
{
    guest_config bare
    printf '%s\n' 'kernel = "/files/ioreq.img"' 'on_poweroff = "preserve"' "$(guest_disk ram:1M)"
} >/tmp/bare.cfg
xl create -p /tmp/bare.cfg || fail "the bare guest could not be created"
sleep 1
number_domains bare driver-domain
mark bare none.begin
mark bare none.end
mark bare round.begin
xl unpause bare
# Ten times what its rounds take, in which Dom0 does not disturb it.
sleep 3
mark bare round.end
# Xen puts the lines of guests among its own.
xl dmesg | sed -n 's/.*(d[0-9]*) \(bench .*\)/\1/p'
