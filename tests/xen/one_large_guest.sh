# promise: A driver domain of 8 MiB serves a guest of 5 GiB, whose memory lies in two places, far beyond 32 bits the second; the guest fills it with files.
# time: 600
# memory: 8G
# disk: file-sets 4 1126M

# The driver domain as users get it, but for this; another test may have said something else.
OPTIONS=${OPTIONS:-'extra = "window=32M"'}

GUEST_MIB=5120
# A guest's memory up to 3 GiB is at 1 GiB, the rest at 8 GiB; Linux has a zone that ends at 4 GiB, and one that begins there.
ZONE_BETWEEN=$((4 << 30))
LEAST_KIB=$((3 << 20))
LEAST_SECOND_KIB=$((1 << 20))

# As in large_guests.sh: what of the files is in memory in the end went through the window, each page of it another one.
cat >job <<JOB
set -e
ZONE_PAGE=$((ZONE_BETWEEN / 4096))
JOB
cat >>job <<'JOB'
cached_kib() {
    awk '/^Cached:/ { print $2 }' /proc/meminfo
}
second_bank_kib() {
    awk -v start="$ZONE_PAGE" '
        /nr_zone_(in)?active_file/ { files += $2 }
        $1 == "start_pfn:" { if ($2 >= start) sum += files; files = 0 }
        END { print sum * 4 }' /proc/zoneinfo
}
before=$(cached_kib)
set=0
for disk in /dev/vd[a-d]; do
    set=$((set + 1))
    mkdir /mnt/$set
    mount -t ext4 -o ro "$disk" /mnt/$set
    pattern verify-files "$set" /mnt/$set/[0-9]*
done
echo "guest: has $(($(cached_kib) - before)) KiB in memory, $(second_bank_kib) KiB in the second bank"
JOB

start_driver_domain "$OPTIONS"

# run_guest MEMORY JOB: with all four partitions; comes back when it is gone.
run_guest() {
    make_guest guest cloud "$2" "memory = $1" "$(guest_disks blk0:label=set{1,2,3,4})" || fail "the guest could not be created"
    wait_guest_message guest "the job ended with status 0" 280 || fail "the guest's job"
    wait_domain_gone guest || fail "the guest does not go away"
}

echo : >nothing
# The driver domain grows what it needs for four disks.
run_guest 256 nothing
measure_memory blk0:label=set1

start=$SECONDS
run_guest "$GUEST_MIB" job
echo "the guest read its files in $((SECONDS - start)) s"

facts=$(grep -o "guest: has .*" "$CONSOLES/guest-guest.log") || fail "the guest does not say what it has"
echo "$facts"
read -r _ _ all _ _ _ second _ <<<"$facts"
[ "$all" -ge "$LEAST_KIB" ] || fail "$all KiB in memory are less than $LEAST_KIB"
[ "$second" -ge "$LEAST_SECOND_KIB" ] || fail "$second KiB in the second bank are less than $LEAST_SECOND_KIB"
same_memory blk0:label=set1
