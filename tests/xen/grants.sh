# promise: A guest that grants its pages is served beside a stock guest whose memory is mapped; each finds its own data, and of no guest a grant in use, a page or a zombie is left.
# time: 300

# What both do on 8 MiB. $key is theirs alone, $granted what bit 33 of the features must be: VIRTIO_F_ACCESS_PLATFORM.
cat >job <<'JOB'
set -e
[ "$(cut -c 34 /sys/block/vda/device/features)" = "$granted" ]

# Large requests, then small ones of four processes at once, each in its own quarter; all past the page cache.
pattern write /dev/vda "$key" 8388608
pattern verify /dev/vda "$key" 8388608
quarters=()
for quarter in 0 1 2 3; do
    (
        dd if=/dev/urandom of="/tmp/$quarter" bs=16k count=32
        dd if="/tmp/$quarter" of=/dev/vda bs=16k seek=$((quarter * 128)) oflag=direct conv=notrunc
        dd if=/dev/vda bs=16k skip=$((quarter * 128)) count=32 iflag=direct | cmp - "/tmp/$quarter"
    ) 2>/dev/null &
    quarters+=($!)
done
for quarter in "${quarters[@]}"; do
    wait "$quarter"
done

# Through the page cache.
mke2fs -q -t ext4 /dev/vda
mount -t ext4 /dev/vda /mnt
dd if=/dev/urandom of=/mnt/file bs=64k count=64 2>/dev/null
(cd /mnt && sha256sum file >SHA256SUMS)
umount /mnt

# The driver lets go of the disk and takes it again: nothing of the rings may be held back.
device=$(basename "$(readlink /sys/block/vda/device)")
echo "$device" >/sys/bus/virtio/drivers/virtio_blk/unbind
echo "$device" >/sys/bus/virtio/drivers/virtio_blk/bind
e2fsck -fn /dev/vda
mount -t ext4 /dev/vda /mnt
(cd /mnt && sha256sum -c SHA256SUMS)
umount /mnt
if dmesg | grep -E "g\.e\.|still in use|broken"; then
    exit 1
fi
JOB

# start_guest NAME FLAVOUR KEY GRANTED DISK
start_guest() {
    (echo "key=$3 granted=$4" && cat job) >"$1.job"
    # Warnings reach the console: those of the guest's end are for us.
    make_guest "$1" "$2" "$1.job" 'extra = "console=hvc0 loglevel=5 panic=1 rdinit=/init"' "$5" || fail "$1 could not be created"
}

# Both at once. The one with the larger kernel begins.
cycle() {
    start_guest mapped cloud 1 0 "$(guest_disk ram:8M)"
    start_guest granting grants 2 1 "$(granting_disk ram:8M)"
    for guest in granting mapped; do
        wait_guest_message "$guest" "the job ended with status 0" 90 || fail "the job of $guest, cycle $1"
        wait_domain_gone "$guest" || fail "$guest of cycle $1 does not go away"
    done
    grep -E "g\.e\.|still in use" "$CONSOLES/guest-granting.log" && fail "a grant is still in use after cycle $1"
    rm -f "$CONSOLES"/guest-{granting,mapped}.log
}

start_driver_domain 'memory = 32'
cycle warm-up
pages=$(xen_free_pages)
state=$(what_is_left)
for cycle in $(seq "${CYCLES:-2}"); do
    cycle "$cycle"
    [ "$(xen_free_pages)" = "$pages" ] || fail "after cycle $cycle Xen has $(xen_free_pages) free pages, not $pages"
    [ "$(what_is_left)" = "$state" ] || fail "after cycle $cycle the driver domain has $(what_is_left), not $state"
done
[ -n "$state" ] || fail "the driver domain does not say what it has"
