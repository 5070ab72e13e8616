# promise: A guest with a NIC and no disk works when it is unpaused once its backend is there; one that does not wait, while the driver domain cannot answer, harms nobody but itself, and can be destroyed.
# time: 180

cat >patient <<'JOB'
set -e
. /net.sh
net_up 10.9.0.1/24
ping -c 5 -i 0.2 -W 2 10.9.0.9 | grep " 0% packet loss"
answered=0
while sleep 0.5; do
    ! ping -c 1 -W 1 10.9.0.9 >/dev/null || echo "guest: ping $((answered += 1))"
done
JOB
cat >hasty <<'JOB'
echo "guest: has '$(ls /sys/class/net | grep -vx lo)'"
sleep 1000
JOB
cat >late <<'JOB'
set -e
. /net.sh
net_up 10.9.0.2/24
ping -c 5 -i 0.2 -W 2 10.9.0.1 | grep " 0% packet loss"
JOB

# pings: how many of the first guest were answered.
pings() {
    grep -c "guest: ping " "$CONSOLES/guest-patient.log"
}

# still_serves: the first guest's pings are answered.
still_serves() {
    local before
    before=$(pings)
    wait_guest_message patient "guest: ping $((before + 5))"
}

start_driver_domain 'extra = "ip=10.9.0.9/24"'
# make_guest creates a guest with a NIC paused, and unpauses it when the NIC's backend is in state 2.
make_guest patient cloud patient "$(guest_nic)" || fail "the first guest could not be created"
wait_guest_message patient "guest: ping 5" || fail "the first guest's NIC does not work"

xl pause driver-domain
# As who does not know that xl waits for no NIC's backend.
HASTY=yes make_guest hasty cloud hasty "$(guest_nic)" || fail "a guest that does not wait could not be created"
wait_guest_message hasty "guest: has" || fail "the hasty guest does not come up at all"
[ "$(guest_said hasty "guest: has ")" = "''" ] || fail "the hasty guest has $(guest_said hasty "guest: has ")"
grep -q "virtio_mmio_probe" "$CONSOLES/guest-hasty.log" || fail "the hasty guest does not say what it misses"
xl unpause driver-domain
still_serves || fail "the first guest's NIC does not work any more"
xl destroy hasty || fail "the hasty guest cannot be destroyed"
wait_domain_gone hasty || fail "the hasty guest does not go away"
still_serves || fail "the first guest's NIC does not work without the hasty guest"
make_guest late cloud late "$(guest_nic)" || fail "another guest could not be created"
wait_guest_message late "the job ended with status 0" || fail "the job of another guest"
wait_domain_gone late || fail "the other guest does not go away"
