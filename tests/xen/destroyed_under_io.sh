# promise: A guest destroyed in the middle of its I/O is gone within 2 seconds, and a new guest works on the same volume.
# time: 180
# clock: instructions

cat >writer <<'JOB'
echo "guest: writing"
while :; do
    dd if=/dev/urandom of=/dev/vda bs=256k count=64 seek=256 oflag=direct 2>/dev/null
done
JOB
cat >checker <<'JOB'
set -e
e2fsck -fn /dev/vda
mount -t ext4 /dev/vda /mnt
cd /mnt
sha256sum -c SHA256SUMS >/dev/null
JOB

# The writer overwrites only what lies behind the file system.
cp /bed/data.img big.img
truncate -s 128M big.img
start_driver_domain 'memory = 160' 'ramdisk = "/files/big.img"'
for cycle in $(seq "${CYCLES:-2}"); do
    echo "cycle $cycle of ${CYCLES:-2}"
    destroy_in_the_middle cloud writer "$(guest_disk initrd)"
done
xl list | grep -q "(null)" && fail "something is left of a guest"
make_guest checker cloud checker "$(guest_disk initrd)" || fail "the new guest could not be created"
wait_guest_message checker "the job ended with status 0" 90 || fail "the new guest's job"
