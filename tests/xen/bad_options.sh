# promise: A command line that is not understood is told on the console and in xenstore, and the driver domain serves all the same.

cat >job <<'JOB'
dd if=/dev/vda of=/dev/null bs=64k count=1 iflag=direct
JOB

start_driver_domain 'extra = "window=lots speed=11"'
error=$(xenstore-read "/local/domain/$(xl domid driver-domain)/data/error") || fail "xenstore says nothing"
for word in "window=lots" "speed=11"; do
    case $error in
    *"'$word'"*) ;;
    *) fail "xenstore says '$error'" ;;
    esac
    grep -q "'$word'" "$CONSOLES/guest-driver-domain.log" || fail "the console says nothing of $word"
done
make_guest guest cloud job "$(guest_disk ram:1M)" || fail "the guest could not be created"
wait_guest_message guest "the job ended with status 0" || fail "the guest's job"
