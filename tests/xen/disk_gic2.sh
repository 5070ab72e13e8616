# promise: The interrupts of a physical disk end the driver domain's sleep with GICv2, too.
# gic: 2
# disk: empty 64M
# time: 90

# One request at a time: each is waited for, and without its interrupt it would take a tenth of a second.
cat >job <<'JOB'
set -e
dd if=/dev/urandom of=/tmp/data bs=1M count=8 2>/dev/null
dd if=/tmp/data of=/dev/vda bs=4k oflag=direct 2>/dev/null
[ "$(dd if=/dev/vda bs=4k count=2048 iflag=direct 2>/dev/null | sha256sum)" = "$(sha256sum </tmp/data)" ]
JOB
start_driver_domain
make_guest guest cloud job "$(guest_disk blk0)" || fail "the guest could not be created"
wait_guest_message guest "the job ended with status 0" 60 || fail "the guest's job"
