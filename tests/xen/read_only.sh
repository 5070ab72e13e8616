# promise: A disk with access=ro can be read, by two guests at once, and refuses writes; nobody can open it for writing meanwhile.
# time: 90

cat >job <<'JOB'
set -e
[ "$(blockdev --getro /dev/vda)" = 1 ]
mount -t ext4 -o ro,noload /dev/vda /mnt
[ -s /mnt/SHA256SUMS ]
umount /mnt
blockdev --setrw /dev/vda
if dd if=/dev/zero of=/dev/vda bs=4k count=1 oflag=direct 2>/dev/null; then
    echo "guest: a write went through"
    exit 1
fi
echo "guest: read-only holds"
sleep 15
JOB

disk() {
    guest_disk initrd | sed "s/access=rw/access=$1/"
}

start_driver_domain 'memory = 96' 'ramdisk = "/bed/data.img"'
make_guest reader1 cloud job "$(disk ro)" || fail "the first reader could not be created"
make_guest reader2 cloud job "$(disk ro)" || fail "the second reader could not be created"
wait_guest_message reader1 "read-only holds" || fail "the first reader's job"
wait_guest_message reader2 "read-only holds" || fail "the second reader's job"
make_guest writer cloud job "$(disk rw)" && fail "a writer beside two readers was created"
grep -q "refused: target 'initrd': volume is open for reading" "$CONSOLES/guest-driver-domain.log" || fail "the refusal is not told"
