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
: >nothing

# refused TARGET SENTENCE: a guest with that disk is not created, and SENTENCE is told in both places.
refused() {
    local target=$1 sentence=$2 watch error=
    exec {watch}< <(exec xenstore-watch "/local/domain/$server/backend/virtio_disk")
    make_guest refused cloud nothing "$(guest_disk "$target")" &
    while [ -z "$error" ] && read -r -t 20 -u "$watch" path; do
        case $path in
        */error) error=$(xenstore-read "$path" 2>/dev/null) ;;
        esac
    done
    exec {watch}<&-
    wait $! && fail "a guest with the disk $target was created"
    case $error in
    *"$sentence"*) ;;
    *) fail "xenstore says '$error' of $target" ;;
    esac
    grep -q "refused: .*$sentence" "$CONSOLES/guest-driver-domain.log" || fail "the console says nothing of $target"
}

start_driver_domain 'memory = 96' 'ramdisk = "/bed/data.img"'
server=$(xl domid driver-domain)
make_guest honest cloud job "$(guest_disk initrd)" || fail "the guest could not be created"
refused "nonsense" "target= is neither"
refused "initrd" "volume is open for writing"
refused "ram:999G" "no RAM for a volume"
wait_guest_message honest "the job ended with status 0" 60 || fail "the guest beside was disturbed"
