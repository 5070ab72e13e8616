# promise: A guest's disk on the real qemu-nbd: the server is killed and restarted under I/O, twice, and the guest notices no error; every file has its SHA-256, for the guest and afterwards for the host, which finds the file system clean.
# time: 240
# nic: user
# service: qemu-nbd 256M

# Another test may have said something else.
SERVER=${SERVER:-qemu-nbd}
PORT=${PORT:-$QEMU_NBD_PORT}
ROUNDS=${ROUNDS:-60}
# How many seconds the server is away, each time.
ABSENCES=${ABSENCES:-3 12}

cat >job <<JOB
set -e
ROUNDS=$ROUNDS
JOB
cat >>job <<'JOB'
mke2fs -q -t ext4 /dev/vda
mount -t ext4 /dev/vda /mnt
for round in $(seq $ROUNDS); do
    head -c 2000000 /dev/urandom >/tmp/file
    (cd /tmp && sha256sum file) | sed "s/file/$round/" >>/tmp/SHA256SUMS
    dd if=/tmp/file of=/mnt/$round bs=64k conv=fsync 2>/dev/null
    # What is read comes from the server, too.
    echo 1 >/proc/sys/vm/drop_caches
    cmp /tmp/file /mnt/$round
    echo "guest: round $round"
done
cp /tmp/SHA256SUMS /mnt
sync
echo 3 >/proc/sys/vm/drop_caches
(cd /mnt && sha256sum -c SHA256SUMS >/tmp/verified) || { cat /tmp/verified; exit 1; }
umount /mnt
! dmesg | grep -iE "I/O error|timed out"
echo "guest: $(grep -c ": OK" /tmp/verified) files verified"
JOB

# rounds: how many the guest has been through.
rounds() {
    grep -c "guest: round" "$CONSOLES/guest-guest.log"
}

# interrupt SECONDS: the server is away so long, while the guest writes; afterwards the guest goes on.
interrupt() {
    local before
    host kill "$SERVER" || fail "the server cannot be killed"
    # A round that was done needs some time until the console shows it.
    sleep 1
    before=$(rounds)
    sleep "$1"
    [ "$(rounds)" -eq "$before" ] || fail "the guest writes to a server that is not there"
    host start "$SERVER" || fail "the server cannot be started again"
    echo "the server was away after $before rounds"
    wait_guest_message guest "guest: round $((before + 3))" || fail "the guest does not go on"
}

start_driver_domain 'extra = "ip=dhcp"'
make_guest guest cloud job "$(guest_disk "nbd:10.0.2.2:$PORT/disk")" || fail "the guest could not be created"
wait_guest_message guest "guest: round 3" || fail "the guest's job"
interrupted=0
for seconds in $ABSENCES; do
    interrupt "$seconds"
    interrupted=$((interrupted + 1))
done
wait_guest_message guest "the job ended with status 0" 120 || fail "the guest's job"
wait_domain_gone guest || fail "the guest does not go away"
[ "$(grep -c "connected again; [1-9][0-9]* commands were sent again" "$CONSOLES/guest-driver-domain.log")" -eq "$interrupted" ] \
    || fail "the server was not killed $interrupted times in the middle of commands"
xl destroy driver-domain
wait_domain_gone driver-domain || fail "the driver domain does not go away"
host kill "$SERVER" || fail "the server cannot be killed"
host verify-image "$SERVER" || fail "the image is not what the guest wrote"
