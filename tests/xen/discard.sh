# promise: Discard and write-zeroes make the named sectors read as zeroes, and no others.

cat >job <<'JOB'
set -e
yes pattern | head -c 4194304 >/tmp/data
dd if=/tmp/data of=/dev/vda bs=1M oflag=direct 2>/dev/null
[ "$(cat /sys/block/vda/queue/discard_max_bytes)" -gt 0 ]
[ "$(cat /sys/block/vda/queue/write_zeroes_max_bytes)" -gt 0 ]
blkdiscard -o 1048576 -l 524288 /dev/vda
blkdiscard -z -o 2097152 -l 4096 /dev/vda
dd if=/dev/zero of=/tmp/data bs=4k seek=256 count=128 conv=notrunc 2>/dev/null
dd if=/dev/zero of=/tmp/data bs=4k seek=512 count=1 conv=notrunc 2>/dev/null
dd if=/dev/vda bs=1M iflag=direct 2>/dev/null | cmp - /tmp/data
JOB

start_driver_domain
make_guest guest cloud job "$(guest_disk ram:4M)" || fail "the guest could not be created"
wait_guest_message guest "the job ended with status 0" || fail "the guest's job"
wait_domain_gone guest || fail "the guest does not go away"
grep -q "discards: [1-9]" "$CONSOLES/guest-driver-domain.log" || fail "no discard came to the driver domain"
