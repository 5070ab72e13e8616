# promise: When Xen has not enough memory for the driver domain's page tables (its P2M pool), the window becomes smaller, told in one line, and a guest is served through what is left.
# time: 240
# disk: file-sets 1 200M

# xl gives no less than 1 MiB, and that is enough for the largest window; so most of it is taken away again. Each page is a table for 512 pages.
POOL_PAGES=24
WINDOW_PAGES=$((64 << 8))

cat >job <<'JOB'
set -e
mount -t ext4 -o ro /dev/vda /mnt
pattern verify-files 1 /mnt/[0-9]*
umount /mnt
# Again from the disk, now that the window is as large as it will be.
mount -t ext4 -o ro /dev/vda /mnt
pattern verify-files 1 /mnt/[0-9]*
JOB

# run_guest: reads more than any window holds, into pages that are all different.
run_guest() {
    make_guest guest cloud job "memory = 512" "$(guest_disk blk0:label=set1)" || fail "the guest could not be created"
    wait_guest_message guest "the job ended with status 0" || fail "the guest's job"
    wait_domain_gone guest || fail "the guest does not go away"
}

start_driver_domain 'shadow_memory = 1' 'extra = "window=64M"'
xen-facts p2m-pool "$(xl domid driver-domain)" "$POOL_PAGES" || fail "the pool cannot be made smaller"
run_guest
measure_memory blk0:label=set1
# The window stays as it is, and is said no more.
run_guest
same_memory blk0:label=set1

complaints=$(grep -E " (WARN|ERROR) " "$CONSOLES/guest-driver-domain.log")
echo "$complaints"
[ "$(wc -l <<<"$complaints")" -eq 1 ] || fail "there is more in the log than one line"
pages=$(sed -n 's/.*p2m pool.*window reduced to \([0-9]*\) pages.*/\1/p' <<<"$complaints")
[ "${pages:-0}" -gt 0 ] && [ "$pages" -lt "$WINDOW_PAGES" ] || fail "the line does not say to which part of $WINDOW_PAGES pages the window is reduced"
