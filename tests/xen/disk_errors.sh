# promise: A physical disk's error on a read, a write or a flush reaches the guest that asked, and nobody else; the driver domain says it once and goes on.
# time: 240
# disk: two-partitions
# disk: empty 16M
# disk: two-partitions
# block-node: driver=blkdebug,node-name=disk0,image=image0,inject-error.0.event=none,inject-error.0.iotype=read,inject-error.0.sector=10051,inject-error.1.event=none,inject-error.1.iotype=write,inject-error.1.sector=18051
# block-node: driver=blkdebug,node-name=disk1,image=image1,inject-error.0.event=none,inject-error.0.iotype=flush
# block-node: driver=blkdebug,node-name=disk2,image=image2,inject-error.0.event=none,inject-error.0.iotype=read,inject-error.0.sector=1

# The first partition begins at sector 2048: one bad sector, for reads, is in its block 1000, another one, for writes, in its block 2000.
# The second disk fails at each flush; of the third one's partition table only the backup can be read.
cat >unlucky <<'JOB'
# expect held|failed WHAT COMMAND...: ends the job when COMMAND does not come to that; it fails with an I/O error or not at all.
expect() {
    local expected=$1 what=$2 found=held
    shift 2
    "$@" >/tmp/error 2>&1 || found=failed
    [ "$found" = held ] || grep -q "Input/output error" /tmp/error || found="failed otherwise: $(cat /tmp/error)"
    [ "$found" = "$expected" ] && return
    echo "guest: $what $found, where it should have $expected"
    exit 1
}
read_block() {
    dd if=/dev/vda of=/tmp/found bs=4096 skip="$1" count="${2:-1}" iflag=direct
}
write_block() {
    dd if=/tmp/data of=/dev/vda bs=4096 seek="$1" count="${2:-1}" conv=notrunc oflag=direct
}
head -c 262144 /dev/urandom >/tmp/data
for round in 1 2; do
    expect failed "a read of the bad sector" read_block 1000
    expect failed "a long read across the bad sector" dd if=/dev/vda of=/dev/null bs=256k skip=15 count=1 iflag=direct
    expect held "a read before the bad sector" read_block 999
    expect held "a read behind the bad sector" read_block 1001
    expect held "a write of the sector that cannot be read" write_block 1000
    expect failed "a write of the bad sector" write_block 2000
    expect held "a write before the bad sector" write_block 1999
    expect held "a read of the sector that cannot be written" read_block 2000
    expect held "a write elsewhere" write_block 4096 64
    expect held "a read elsewhere" read_block 4096 64
    cmp /tmp/data /tmp/found || exit 1
    expect failed "a flush" dd if=/tmp/data of=/dev/vdb bs=4096 count=1 conv=notrunc,fsync
    expect held "a write without a flush" dd if=/tmp/data of=/dev/vdb bs=4096 count=1 conv=notrunc oflag=direct
    expect held "a flush of the other disk" dd if=/tmp/data of=/dev/vda bs=4096 seek=3000 count=1 conv=notrunc,fsync
done
JOB
cat >neighbour <<'JOB'
while :; do
    pattern write /dev/vda 2 16777216 || exit
    pattern verify /dev/vda 2 16777216 || exit
    echo "guest: a round is verified"
done
JOB
cat >successor <<'JOB'
set -e
for disk in vda vdb; do
    pattern write /dev/$disk 3 1048576
    pattern verify /dev/$disk 3 1048576
done
JOB
# two_disks TARGET TARGET: xvda and xvdb of one guest.
two_disks() {
    local first=$(guest_disk "$1") second=$(guest_disk "$2" xvdb)
    echo "${first% ]}, ${second#disk = [ }"
}

start_driver_domain
make_guest neighbour cloud neighbour "$(guest_disk blk0:part=2)" || fail "the neighbour could not be created"
wait_guest_message neighbour "a round is verified" || fail "the neighbour's first round"
make_guest unlucky cloud unlucky "$(two_disks blk0:part=1 blk1)" || fail "the guest with bad disks could not be created"
wait_guest_message unlucky "the job ended with status 0" 120 || fail "the guest with bad disks: $(grep 'guest:' "$CONSOLES/guest-unlucky.log")"
wait_domain_gone unlucky || fail "the guest with bad disks does not go away"
make_guest successor cloud successor "$(two_disks blk0:part=1 blk2:label=second)" || fail "a new guest on the bad disk could not be created"
wait_guest_message successor "the job ended with status 0" || fail "the new guest's job"
! grep -q "the job ended" "$CONSOLES/guest-neighbour.log" || fail "the neighbour's job"
rounds=$(grep -c "a round is verified" "$CONSOLES/guest-neighbour.log")
echo "the neighbour verified $rounds rounds"
[ "$rounds" -gt 2 ] || fail "the neighbour stood still"
lines=$(grep -c "request failed" "$CONSOLES/guest-driver-domain.log")
[ "$lines" -eq 2 ] || fail "the driver domain tells of failed requests in $lines lines, and not in one for each of two disks"
grep -q "blk2: its partition table is bad, its backup is used" "$CONSOLES/guest-driver-domain.log" || fail "the driver domain says nothing of a bad partition table"
