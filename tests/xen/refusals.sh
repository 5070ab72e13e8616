# promise: A volume that is unknown, open already or too large is refused with one sentence on the console and in xenstore, and a guest at work beside it notices nothing.
# time: 150

cat >job <<'JOB'
set -e
yes data | head -c 1048576 >/tmp/data
for round in $(seq 40); do
    dd if=/tmp/data of=/dev/vda bs=64k oflag=direct 2>/dev/null
    dd if=/dev/vda bs=64k count=16 iflag=direct 2>/dev/null | cmp - /tmp/data
    sleep 1
done
JOB

start_driver_domain 'memory = 96' 'ramdisk = "/bed/data.img"'
make_guest honest cloud job "$(guest_disk initrd)" || fail "the guest could not be created"
refuses_disk "nonsense" "target= is none of"
refuses_disk "initrd" "volume is open for writing"
refuses_disk "ram:999G" "no RAM for"
wait_guest_message honest "the job ended with status 0" 60 || fail "the guest beside was disturbed"
