# promise: A driver domain of 8 MiB serves four guests of 1 GiB at once, each reading more files than its memory holds: gigabytes of their pages go through a window of 32 MiB.
# time: 600
# memory: 8G
# disk: file-sets 4 1126M

# The driver domain as users get it, but for this; another test may have said something else.
OPTIONS=${OPTIONS:-'extra = "window=32M"'}

FILES_KIB=$((1126 << 10))
GUESTS_MIB=1024
LEAST_KIB=$((2 << 20))

# What of the files is in the guest's memory in the end was filled by us, through the window, and each page of it is another one. The root is in
# memory, too: it is there from the start.
cat >job <<'JOB'
set -e
cached_kib() {
    awk '/^Cached:/ { print $2 }' /proc/meminfo
}
before=$(cached_kib)
mount -t ext4 -o ro /dev/vda /mnt
pattern verify-files "$(cat /key)" /mnt/[0-9]*
echo "guest: has $(($(cached_kib) - before)) KiB in memory"
JOB

start_driver_domain "$OPTIONS"

# make_guests MEMORY JOB: four guests, each on a partition of its own, at once; comes back when they are gone.
make_guests() {
    local number
    for number in 1 2 3 4; do
        mkdir -p key
        echo "$number" >key/key
        GUEST_FILES=key make_guest "guest$number" cloud "$2" "memory = $1" "$(guest_disk "blk0:label=set$number")" \
            || fail "guest$number could not be created"
    done
    # The first has not ended by now.
    xl domid guest1 >/dev/null 2>&1 || [ "$1" -lt "$GUESTS_MIB" ] || fail "the guests were not there at once"
    for number in 1 2 3 4; do
        wait_guest_message "guest$number" "the job ended with status 0" 280 || fail "the job of guest$number"
        wait_domain_gone "guest$number" || fail "guest$number does not go away"
    done
}

# The driver domain grows what it needs for four guests.
make_guests 256 /dev/null
measure_memory blk0:label=set1

start=$SECONDS
make_guests "$GUESTS_MIB" job
echo "four guests read their files in $((SECONDS - start)) s"

sum=0
for number in 1 2 3 4; do
    kib=$(sed -n 's/.*guest: has \([0-9]*\) KiB in memory.*/\1/p' "$CONSOLES/guest-guest$number.log")
    echo "guest$number: $kib KiB of $FILES_KIB in memory"
    [ "$kib" -lt "$FILES_KIB" ] || fail "the memory of guest$number holds all its files"
    sum=$((sum + kib))
done
echo "at least $((sum / 4)) pages of guests went through the window"
[ "$sum" -ge "$LEAST_KIB" ] || fail "$sum KiB are less than $LEAST_KIB"
same_memory blk0:label=set1
