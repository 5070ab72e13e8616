# What a request costs as guests become more, as their memory grows, and as the window shrinks against the pages in use. Disks in RAM, of the
# driver domain and of Linux' own backend in Dom0.
. /files/marks.sh
. /files/blkback.sh

# scale_guest NAME MEMORY OPTIONS DISK: a guest that does with blkbench what OPTIONS say.
scale_guest() {
    echo "$VOLUME_BYTES $3" >/files/guest/volume
    make_guest "$1" cloud /files/disk.job "memory = $2" "$4" || fail "guest $1 could not be created"
}

# results NAME GUEST: what GUEST has measured, as NAME; comes back when it is gone.
results() {
    wait_guest_message "$2" "the job ended with status 0" || fail "guest $2 is not content"
    wait_domain_gone "$2" || fail "guest $2 does not go away"
    grep '^bench ' "$CONSOLES/guest-$2.log" | sed "s/^bench /bench guest=$1 /"
}

# disk_of SIDE NUMBER: the disk of the guest of that number.
disk_of() {
    case $1 in
    ours) guest_disk "ram:$VOLUME_BYTES" ;;
    blkback) blkback_disk "/dev/ram$(($2 - 1))" ;;
    esac
}

# backend_of SIDE
backend_of() {
    case $1 in
    ours) echo driver-domain ;;
    blkback) echo 0 ;;
    esac
}

# more_guests SIDE: guests with equal work at once, as many as each word of GUEST_COUNTS says; those that are there already wait while others
# come up.
more_guests() {
    local side=$1 count guest stages guests=() old
    read -ra stages <<<"$GUEST_COUNTS"
    while [ "${#stages[@]}" -gt 0 ]; do
        count=${stages[0]}
        old=("${guests[@]}")
        while [ "${#guests[@]}" -lt "$count" ]; do
            guest=$side-guest$((${#guests[@]} + 1))
            guests+=("$guest")
            scale_guest "$guest" 192 "cases=$GUEST_CASES rounds=2 passes=${#stages[@]}" "$(disk_of "$side" "${#guests[@]}")"
        done
        go_on "${old[@]}"
        answer_marks_together "$side-guests-$count" "$(backend_of "$side")" "${guests[@]}"
        stages=("${stages[@]:1}")
    done
    go_on "${guests[@]}"
    for guest in "${guests[@]}"; do
        results "$guest" "$guest"
    done
}

# more_memory SIDE: one guest, as large as each word of MEMORIES says, with buffers spread over half of it.
more_memory() {
    local side=$1 mib guest
    for mib in $MEMORIES; do
        guest=$side-memory-$mib
        scale_guest "$guest" "$mib" "cases=$MEMORY_CASES rounds=3 over=$((mib / 2 << 20)) buffers=$MEMORY_BUFFERS" "$(disk_of "$side" 1)"
        answer_marks "$guest" "$guest" "$(backend_of "$side")"
        results "$guest" "$guest"
    done
}

export GUEST_FILES=/files/guest

# One volume each, and a little more.
start_driver_domain "memory = $((16 + ${GUEST_COUNTS##* } * (VOLUME_BYTES >> 20)))"
more_guests ours
more_guests blkback
xl destroy driver-domain
wait_domain_gone driver-domain || fail "the driver domain does not go away"

start_driver_domain "memory = 24"
COUNTING=yes more_memory ours
more_memory blkback
xl destroy driver-domain
wait_domain_gone driver-domain || fail "the driver domain does not go away"

start_driver_domain "memory = 24" "extra = \"window=$WINDOW\""
scale_guest ours-window 512 "cases=$MEMORY_CASES rounds=3 over=$((128 << 20)) buffers=$WINDOW_BUFFERS" "$(disk_of ours 1)"
COUNTING=yes answer_marks ours-window ours-window driver-domain
results ours-window ours-window
