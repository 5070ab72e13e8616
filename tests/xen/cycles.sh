# promise: Over many guests that come, work and go, the driver domain keeps nothing: its frames, slots, event channels and Xen's free pages do not drift.
# time: 7200

cat >job <<'JOB'
dd if=/dev/zero of=/dev/vda bs=64k count=16 oflag=direct 2>/dev/null
JOB

start_driver_domain
cycle() {
    make_guest guest cloud job "$(guest_disk ram:1M)" || fail "the guest of cycle $1 could not be created"
    wait_guest_message guest "the job ended with status 0" || fail "the job of cycle $1"
    wait_domain_gone guest || fail "the guest of cycle $1 does not go away"
    rm -f "$CONSOLES/guest-guest.log"
}

cycle warm-up
pages=$(xen_free_pages)
state=$(what_is_left)
report=$(memory_report)
echo "$report"
nodes=$(xenstore-ls "/local/domain/$(xl domid driver-domain)" | wc -l)
for cycle in $(seq "${CYCLES:-10}"); do
    cycle "$cycle"
    [ "$(xen_free_pages)" = "$pages" ] || fail "after cycle $cycle Xen has $(xen_free_pages) free pages, not $pages"
    now=$(what_is_left)
    [ "$now" = "$state" ] || fail "after cycle $cycle the driver domain has $now, not $state"
    now=$(memory_report)
    [ "$now" = "$report" ] || fail "after cycle $cycle the driver domain has $now, not $report"
done
grep -q "IS NOT" "$CONSOLES/guest-driver-domain.log" && fail "the books of the physmap do not add up"
[ "$(xenstore-ls "/local/domain/$(xl domid driver-domain)" | wc -l)" = "$nodes" ] || fail "xenstore has more nodes than before"
[ -n "$state" ] || fail "the driver domain does not say what it has"
