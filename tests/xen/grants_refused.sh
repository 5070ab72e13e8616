# promise: A stock guest, whose kernel has no XEN_VIRTIO, gets nothing of a disk with grant_usage=1; it boots on, and one sentence on the console and in xenstore tells the way out.
# time: 120

# Linux waits some 10 s for a driver of the node xen,grant-dma; then its virtio driver takes the disk as if it were an ordinary one, and gives
# it up when it has seen what that is like.
cat >job <<'JOB'
for second in $(seq 30); do
    [ -e /sys/bus/virtio/devices/virtio0 ] && break
    sleep 1
done
[ -e /sys/bus/virtio/devices/virtio0 ] || exit 1
echo "guest: the disk is probed"
sleep 5
[ -e /dev/vda ] && exit 1
echo "guest: boots on without the disk"
# Time for Dom0 to look at xenstore.
sleep 10
JOB

start_driver_domain
make_guest stock cloud job "$(granting_disk ram:1M)" || fail "the guest could not be created"
wait_guest_message stock "guest: boots on without the disk" 90 || fail "the guest has the disk, or does not boot on"

error=$(xenstore-read "/local/domain/$(xl domid driver-domain)/backend/virtio_disk/$(xl domid stock)/51712/error")
case $error in
*grant_usage=0*XEN_VIRTIO* | *XEN_VIRTIO*grant_usage=0*) ;;
*) fail "xenstore says '$error'" ;;
esac
sentences=$(grep "XEN_VIRTIO" "$CONSOLES/guest-driver-domain.log" | grep -c "grant_usage=0")
[ "$sentences" = 1 ] || fail "the console has $sentences sentences about it, not one"

wait_guest_message stock "the job ended with status 0" || fail "the guest does not end"
wait_domain_gone stock || fail "the guest does not go away"
