# promise: A stock guest works on a disk that the driver domain serves; afterwards both are gone and Xen has all its pages back.

cat >job <<'JOB'
set -e
dd if=/dev/urandom of=/tmp/data bs=64k count=64 2>/dev/null
dd if=/tmp/data of=/dev/vda bs=64k oflag=direct 2>/dev/null
echo 3 >/proc/sys/vm/drop_caches
head -c 4194304 /dev/vda | cmp - /tmp/data
echo "guest: the disk holds what was written"
JOB

cycle() {
    start_driver_domain
    make_guest guest cloud job "$(guest_disk ram:4M)" || fail "the guest could not be created"
    wait_guest_message guest "the job ended with status 0" || fail "the guest's job"
    wait_domain_gone guest || fail "the guest does not go away"
    xl destroy driver-domain
    wait_domain_gone driver-domain || fail "the driver domain does not go away"
    grep -q "the disk holds what was written" "$CONSOLES/guest-guest.log" || fail "nothing was compared"
    rm -f "$CONSOLES"/guest-*.log
}

# The first cycle lets Xen and Dom0 take what they keep.
cycle
before=$(xen_free_pages)
cycle
after=$(xen_free_pages)
[ "$before" = "$after" ] || fail "Xen had $before free pages before and has $after after"
