# Equal guests one after the other. Disks in RAM: of the driver domain, then of Linux' own backend in Dom0, then of the guest itself. Then equal
# physical disks: the driver domain's, Linux' backend on Dom0's, and Dom0's without any guest.
. /files/marks.sh
. /files/blkback.sh

bench() {
    local name=$1
    shift
    make_guest "$name" cloud /files/disk.job "$@" || fail "guest $name could not be created"
    answer_marks "$name" "$name" driver-domain 0
    grep '^bench ' "$CONSOLES/guest-$name.log" | sed "s/^bench /bench guest=$name /"
}

# bench_process MODE: the disk is of a process of Linux in Dom0, which maps the guest's memory by MODE (tests/linux_backend/main.c).
bench_process() {
    /bed/linux-backend "$1" "$VOLUME_BYTES" &
    local process=$!
    bench "linux-$1" "$(guest_disk /dev/ram1 | sed 's/backend=driver-domain, //')"
    wait "$process" || fail "the process of Linux ended with status $?"
}

export GUEST_FILES=/files/guest
start_driver_domain "memory = $DRIVER_DOMAIN_MEMORY"
echo "$VOLUME_BYTES cases=$CASES" >/files/guest/volume
COUNTING=yes bench ours "$(guest_disk "ram:$VOLUME_BYTES")"
bench blkback "$(blkback_disk /dev/ram0)"
bench floor
echo "$VOLUME_BYTES rounds=1 cases=$PROCESS_CASES" >/files/guest/volume
bench_process all
bench_process each

echo "$DISK_BYTES forgets cases=$DISK_CASES" >/files/guest/volume
COUNTING=yes bench ours-disk "$(guest_disk blk0)"
for disk in /sys/block/vd*; do
    [ "$(cat "$disk/serial")" != dom0 ] || dom0_disk=${disk##*/}
done
[ -n "$dom0_disk" ] || fail "Dom0 has no disk with the serial number dom0"
echo none >"/sys/block/$dom0_disk/queue/scheduler"
bench blkback-disk "$(blkback_disk "/dev/$dom0_disk")"
(answer_marks Domain-0 0) &
/files/guest/blkbench "/dev/$dom0_disk" "$DISK_BYTES" forgets "cases=$DISK_CASES" | sed -n 's/^bench /bench guest=dom0 /p'
kill $!
