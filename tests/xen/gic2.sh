# promise: On a machine with a GICv2 the driver domain serves all the same.
# gic: 2

cat >job <<'JOB'
set -e
yes data | head -c 1048576 >/tmp/data
dd if=/tmp/data of=/dev/vda bs=4k oflag=direct 2>/dev/null
dd if=/dev/vda bs=64k iflag=direct 2>/dev/null | cmp - /tmp/data
JOB

start_driver_domain
make_guest guest cloud job "$(guest_disk ram:1M)" || fail "the guest could not be created"
wait_guest_message guest "the job ended with status 0" || fail "the guest's job"
