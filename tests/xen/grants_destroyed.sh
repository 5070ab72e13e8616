# promise: A guest that grants its pages, destroyed in the middle of its I/O, is gone within 2 seconds with all its pages, and the next one works.
# time: 180
# clock: instructions

cat >writer <<'JOB'
echo "guest: writing"
while :; do
    dd if=/dev/urandom of=/dev/vda bs=256k count=32 oflag=direct conv=notrunc 2>/dev/null &
    dd if=/dev/urandom of=/dev/vda bs=256k count=32 seek=32 conv=notrunc,fsync 2>/dev/null
    wait
done
JOB
cat >checker <<'JOB'
set -e
pattern write /dev/vda 1 16777216
pattern verify /dev/vda 1 16777216
JOB

start_driver_domain 'memory = 32'
for cycle in warm-up $(seq "${CYCLES:-2}"); do
    echo "cycle $cycle"
    destroy_in_the_middle grants writer "$(granting_disk ram:16M)"
    [ "$cycle" = warm-up ] && pages=$(xen_free_pages)
    [ "$(xen_free_pages)" = "$pages" ] || fail "after cycle $cycle Xen has $(xen_free_pages) free pages, not $pages"
done
make_guest checker grants checker "$(granting_disk ram:16M)" || fail "the next guest could not be created"
wait_guest_message checker "the job ended with status 0" || fail "the next guest's job"
