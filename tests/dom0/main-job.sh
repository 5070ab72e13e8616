# The main job: a driver domain serves a partition of a physical disk to a stock guest, which verifies it, writes to it and verifies it
# again; then both go, and Xen has all its pages back. What is worth a table goes to $OUT/table.

row() {
    printf '%s\t%s\n' "$1" "$2" >>"$OUT/table"
}

# timed NAME COMMAND...: a row with the seconds that COMMAND takes.
timed() {
    local name=$1 start=$EPOCHREALTIME
    shift
    "$@" || fail "$name"
    row "$name" "$(awk "BEGIN { printf \"%.1f s\", $EPOCHREALTIME - $start }")"
}

serve() {
    start_driver_domain
}

guest() {
    make_guest guest cloud "$1" "$(guest_disk blk0:label=data)"
}

remove() {
    wait_domain_gone guest || fail "the guest does not go away"
    xl destroy driver-domain || fail "the driver domain cannot be destroyed"
    wait_domain_gone driver-domain || fail "the driver domain does not go away"
}

# The first cycle lets Xen and Dom0 take what they keep.
echo "warm-up: a guest reads one sector"
echo 'head -c 512 /dev/vda | wc -c' >/tmp/warm-up
serve
guest /tmp/warm-up || fail "the first guest could not be created"
wait_guest_message guest "the job ended with status 0" || fail "the first guest's job"
remove
before=$(xen_free_pages)

echo "the job: a guest verifies the volume, writes to it, and verifies it again"
timed "driver domain ready after" serve
timed "guest created after" guest /bed/verify-volume.sh
timed "guest's job done after" wait_guest_message guest "the job ended with status" 200
sed -n 's/^volume: //p' "$CONSOLES/guest-guest.log" | tr -d '\r'
grep -q "the job ended with status 0" "$CONSOLES/guest-guest.log" || fail "the guest's job: $(tail -5 "$CONSOLES/guest-guest.log")"
timed "both domains gone after" remove

row "served" "partition \"data\" of a physical disk, ext4"
row "memory of the driver domain" "$(sed -n 's/^memory = //p' /tmp/driver-domain.cfg) MiB"
tr -d '\r' <"$CONSOLES/guest-guest.log" | sed -n 's/^row: //p' | while IFS='|' read -r name value; do
    row "$name" "$value"
done
[ "$(xl list | wc -l)" -eq 2 ] || fail "Dom0 is not alone: $(xl list)"
after=$(xen_free_pages)
row "Xen's free pages before and after" "$before, $after"
[ "$before" = "$after" ] || fail "Xen had $before free pages before and has $after after"
