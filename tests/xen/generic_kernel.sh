# promise: Debian's generic kernel works on the disk as its cloud kernel does.
# time: 90

cat >job <<'JOB'
set -e
mke2fs -q -t ext4 /dev/vda
mount -t ext4 /dev/vda /mnt
cp -r /bin /mnt/
sync
umount /mnt
e2fsck -fn /dev/vda
uname -r
JOB

start_driver_domain 'memory = 48'
make_guest guest generic job "$(guest_disk ram:24M)" || fail "the guest could not be created"
wait_guest_message guest "the job ended with status 0" 80 || fail "the guest's job"
