# promise: A disk or partition that is not there, is read-only, or is open already, also as a part of the whole, is refused with one sentence, and no disk is written.
# time: 300
# disk: two-partitions
# disk: empty 9M
# disk: empty 1M
# block-node: driver=raw,node-name=disk2,file=image2,read-only=on
# host: untouched

cat >job <<'JOB'
set -e
for round in $(seq 60); do
    dd if=/dev/vda of=/dev/null bs=64k count=16 iflag=direct 2>/dev/null
    sleep 0.5
done
JOB

start_driver_domain
make_guest honest cloud job "$(guest_disk blk0:label=first)" || fail "the guest could not be created"
refuses_disk blk0 "volume is open for writing elsewhere"
refuses_disk blk0:part=1 "volume is open for writing elsewhere"
refuses_disk blk3 "there is no disk blk3: this driver domain has 3 physical disks"
refuses_disk blk0:part=3 "there is no partition 3; there are: "
refuses_disk blk0:label=third "there is no partition labelled 'third'; there are: "
refuses_disk blk1:part=1 "the disk has no GPT"
refuses_disk blk2 "the disk is read-only: give access=ro"
make_guest reader cloud job "$(guest_disk blk2 | sed 's/access=rw/access=ro/')" || fail "no reader of the read-only disk"
wait_guest_message honest "the job ended with status 0" 90 || fail "the guest beside was disturbed"
wait_guest_message reader "the job ended with status 0" 90 || fail "the reader's job"
