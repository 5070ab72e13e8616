# promise: A physical disk that stops answering costs its guest an I/O error after a while, not its life, and its neighbours nothing; it may come back.
# time: 300
# disk: empty 65M
# disk: empty 16M
# qemu: -object throttle-group,id=slow,x-bps-write=100
# block-node: driver=throttle,node-name=disk1,file=image1,throttle-group=slow

# The second disk takes a write at once and the next one, of 4 KiB, 40 seconds later; reads are always quick. The driver domain waits 20.
cat >unlucky <<'JOB'
head -c 4096 /dev/urandom >/tmp/data
write_block() {
    dd if=/tmp/data of=/dev/vda bs=4096 seek="$1" count=1 conv=notrunc oflag=direct 2>&1
}
read_block() {
    dd if=/dev/vda of=/tmp/found bs=4096 skip="$1" count=1 iflag=direct 2>/dev/null
}
write_block 1 || exit
start=$SECONDS
write_block 2 >/tmp/error && echo "guest: the disk is not slow" && exit 1
grep -q "Input/output error" /tmp/error || exit
echo "guest: an I/O error after $((SECONDS - start)) s"
until read_block 1; do
    sleep 1
done
cmp /tmp/data /tmp/found || exit
echo "guest: the disk is back after $((SECONDS - start)) s"
write_block 3
JOB
cat >neighbour <<'JOB'
while :; do
    pattern write /dev/vda 1 33554432 || exit
    pattern verify /dev/vda 1 33554432 || exit
    echo "guest: a round is verified"
    sleep 0.5
done
JOB

start_driver_domain
make_guest neighbour cloud neighbour "$(guest_disk blk0)" || fail "the neighbour could not be created"
make_guest unlucky cloud unlucky "$(guest_disk blk1)" || fail "the guest with the slow disk could not be created"
wait_guest_message unlucky "guest: an I/O error after" 90 || fail "the guest with the slow disk is left without an answer"
grep -o "guest: an I/O error after.*" "$CONSOLES/guest-unlucky.log"
rounds=$(grep -c "is verified" "$CONSOLES/guest-neighbour.log")
wait_guest_message unlucky "guest: the disk is back" 90 || fail "the slow disk does not come back"
grep -o "guest: the disk is back.*" "$CONSOLES/guest-unlucky.log"
[ "$(grep -c "has stopped answering" "$CONSOLES/guest-driver-domain.log")" -eq 1 ] || fail "the driver domain does not tell of the silent disk in one line"
[ "$(grep -c "is verified" "$CONSOLES/guest-neighbour.log")" -gt "$rounds" ] || fail "the neighbour stood still"

# It is in the middle of a write that takes very long. Whoever waited for the disk, or for the time limit, would take 20 s and more.
sleep 2
start=${EPOCHREALTIME/./}
xl destroy unlucky || fail "the guest with the slow disk cannot be destroyed"
took_ms=$(((${EPOCHREALTIME/./} - start) / 1000))
echo "xl destroy took $took_ms ms"
[ "$took_ms" -lt 5000 ] || fail "xl destroy took $took_ms ms"
wait_domain_gone unlucky 5 || fail "the guest with the slow disk is a zombie"
! grep -q "the job ended" "$CONSOLES/guest-neighbour.log" || fail "the neighbour's job"
