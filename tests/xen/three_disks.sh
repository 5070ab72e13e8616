# promise: Two guests on two partitions of one disk and a third on another disk work at once, and each byte is written where it belongs.
# time: 240
# disk: two-partitions
# disk: empty 65M
# host: patterns

BYTES=$((64 << 20))

start_driver_domain
number=0
for target in blk0:label=first blk0:part=2 blk1; do
    number=$((number + 1))
    make_guest "guest$number" cloud /dev/stdin "$(guest_disk "$target")" <<JOB || fail "guest$number could not be created with $target"
set -e
for round in 1 2; do
    pattern write /dev/vda $number $BYTES
    pattern verify /dev/vda $number $BYTES
done
JOB
done
for number in 1 2 3; do
    wait_guest_message "guest$number" "the job ended with status 0" 200 || fail "the job of guest$number"
done
for number in 1 2 3; do
    wait_domain_gone "guest$number" || fail "guest$number does not go away"
done
