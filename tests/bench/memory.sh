# The least memory= with which a driver domain serves one guest of 1 GiB, and four at once, each on a partition of its own of a physical disk.
#
# Served means: while all of them are there, each reads files past its page cache, writes one, and finds all as it must be.

mkdir key
cat >job <<'JOB'
set -e
mount -t ext4 /dev/vda /mnt
served=0
while :; do
    pattern verify-files "$(cat /key)" /mnt/[0-9]*
    cat /mnt/00000 /mnt/00001 /mnt/00002 >/mnt/written
    sync
    echo 3 >/proc/sys/vm/drop_caches
    cat /mnt/00000 /mnt/00001 /mnt/00002 | cmp - /mnt/written
    served=$((served + 1))
    echo "guest: served so often: $served."
done
JOB

# serves COUNT MEMORY: whether so many guests are served with so much.
serves() {
    local number served
    start_driver_domain "memory = $2"
    for number in $(seq "$1"); do
        echo "$number" >key/key
        GUEST_FILES=key make_guest "guest$number" cloud job 'memory = 1024' "$(guest_disk "blk0:label=set$number")" || return
    done
    for number in $(seq "$1"); do
        served=$(grep -c "served so often" "$CONSOLES/guest-guest$number.log")
        # One that began when all were there already.
        wait_guest_message "guest$number" "served so often: $((served + 2))." 120 || return
    done
}

destroy_all() {
    local number
    for number in $(seq "$1"); do
        xl destroy "guest$number" 2>/dev/null
    done
    xl destroy driver-domain 2>/dev/null
    wait_domain_gone driver-domain
}

for count in 1 4; do
    for memory in $MEMORIES; do
        if (serves "$count" "$memory") >log 2>&1; then
            serves=yes
        else
            serves=no
        fi
        echo "bench name=memory guests=$count mib=$memory serves=$serves"
        if [ "$serves" = no ]; then
            sed 's/^/# /' log
            grep -hE " (WARN|ERROR) |refused" "$CONSOLES/guest-driver-domain.log" | sed 's/^/# /'
        fi
        destroy_all "$count" >/dev/null 2>&1
        [ "$serves" = yes ] || break
    done
done
exit 0
