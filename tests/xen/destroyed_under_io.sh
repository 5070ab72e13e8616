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
    make_guest writer cloud writer "$(guest_disk initrd)" || fail "the writer could not be created"
    wait_guest_message writer "guest: writing" || fail "the writer does not write"
    sleep 1
    start=${EPOCHREALTIME/./}
    xl destroy writer >destroy.log 2>&1 || fail "the writer cannot be destroyed: $(cat destroy.log)"
    took_ms=$(((${EPOCHREALTIME/./} - start) / 1000))
    grep -q "error" destroy.log && fail "xl destroy is not content: $(cat destroy.log)"
    [ "$took_ms" -lt 2000 ] || fail "xl destroy took $took_ms ms"
    echo "xl destroy took $took_ms ms"
    wait_domain_gone writer 5 || fail "the writer is a zombie"
    rm -f "$CONSOLES/guest-writer.log"
done
xl list | grep -q "(null)" && fail "something is left of a guest"
make_guest checker cloud checker "$(guest_disk initrd)" || fail "the new guest could not be created"
wait_guest_message checker "the job ended with status 0" 90 || fail "the new guest's job"
