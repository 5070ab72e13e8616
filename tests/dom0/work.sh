# Guests under I/O whose data is compared, for scripts of Dom0: `. /bed/work.sh`. Three kinds of work at once: a pattern written and verified past the
# page cache; records, each durable before it is told; files from the other guest by HTTP.

# work OWN OTHER [BYTES]: the job of the guest with address 10.9.0.OWN, whose neighbour is 10.9.0.OTHER. The pattern has BYTES; the records lie
# behind it.
work() {
    cat <<JOB
OTHER=10.9.0.$2
BYTES=${3:-4194304}
. /net.sh
net_up 10.9.0.$1/24
JOB
    cat <<'JOB'
# A console that nobody reads holds nobody up.
mkfifo /tmp/said
cat /tmp/said &
exec >/tmp/said 2>&1
mkdir /tmp/www
seq 50000 >/tmp/www/file
httpd -h /tmp/www
# has_done WHAT COUNT: says so, and when that was.
has_done() {
    local time
    read -r time _ </proc/uptime
    echo "guest: $1 $2 at $time"
}
fetch() {
    local count=0
    while :; do
        # A connection may be cut off by frames that were lost.
        wget -q -T 5 -O /tmp/got "http://$OTHER/file" 2>/dev/null || continue
        cmp -s /tmp/got /tmp/www/file || { echo "guest: another file than was sent"; return; }
        has_done fetched $((count += 1))
    done
}
record() {
    local count=0
    while :; do
        printf '%4095d\n' "$count" | tee -a /tmp/records >/tmp/record
        dd if=/tmp/record of=/dev/vda bs=4096 seek=$((BYTES / 4096 + count)) oflag=direct conv=notrunc,fsync 2>/dev/null || return
        has_done recorded $((count += 1))
        [ $((count % 10)) -eq 0 ] || continue
        dd if=/dev/vda bs=4096 skip=$((BYTES / 4096)) count="$count" iflag=direct 2>/dev/null | cmp - /tmp/records || return
        echo "guest: all are there, $count"
    done
}
patterns() {
    local count=0
    while pattern write /dev/vda "$((count % 256))" "$BYTES" && pattern verify /dev/vda "$((count % 256))" "$BYTES"; do
        has_done verified $((count += 1))
    done
}
fetch &
record &
patterns &
wait -n
echo "guest: one of them has ended"
sleep 1000
JOB
}

# times_done GUEST WHAT: how often a guest has said that it has verified, recorded or fetched.
times_done() {
    grep -c "guest: $2" "$CONSOLES/guest-$1.log"
}

# goes_on GUEST WHAT TIMES: waits until a guest has done that so many times more.
goes_on() {
    local start=$SECONDS until=$(($(times_done "$1" "$2") + $3))
    until [ "$(times_done "$1" "$2")" -ge "$until" ]; do
        grep "guest: one of them has ended" "$CONSOLES/guest-$1.log" && fail "something has ended in $1"
        seconds_left "$start" 60 >/dev/null || fail "$1 does not go on: $2"
        sleep 0.1
    done
}

# all_goes_on GUEST...: waits until each has done some more of all.
all_goes_on() {
    local name
    for name; do
        goes_on "$name" verified 1
        goes_on "$name" recorded 2
        goes_on "$name" fetched 1
    done
}

# nothing_is_lost GUEST...: waits until each has seen all its records again, and fails when anything else was wrong.
nothing_is_lost() {
    local name
    for name; do
        goes_on "$name" "all are there" 2
        echo "$name: $(guest_said "$name" "guest: all are there, ") records were durable, and are there"
        grep -E "I/O error|another word|another file" "$CONSOLES/guest-$name.log" && fail "a request of $name failed"
    done
}
