# The job of a guest whose disk is the data image: verify every file, write 16 MiB more, check the file system, verify all again.
set -e

verify() {
    cd /mnt
    sha256sum -c -s SHA256SUMS
    if [ -e written.sum ]; then
        sha256sum -c -s written.sum
    fi
    cd /
}

mount -t ext4 /dev/vda /mnt
files=$(wc -l </mnt/SHA256SUMS)
verify
echo "volume: $files files verified"
dd if=/dev/urandom of=/mnt/written bs=64k count=256 2>/dev/null
(cd /mnt && sha256sum written >written.sum)
sync
umount /mnt
echo "volume: 16 MiB written"
e2fsck -f -n /dev/vda
echo "volume: the file system is clean"
# Nothing of it is still in memory: what is read now comes from the disk.
echo 3 >/proc/sys/vm/drop_caches
mount -t ext4 /dev/vda /mnt
verify
umount /mnt
echo "volume: all verified again"
echo "row: files verified, twice|$files"
echo "row: written and verified|16 MiB"
