# promise: Beside a guest that does all that a guest can do, at random, the disk and the NIC of an honest one hold what was written and go on; the hostile one works again after a reset, is destroyed at any moment, and nothing of it is left.
# time: 1200
# xen: release
# clock: instructions
# guest: hostile
# disk: two-partitions

# What a run is made of, each of it from the environment, too: the first seed, how many lives or how many minutes of the host's clock, the attacks that each
# life chooses from (several words: one after the other), and how long a life is at most. CYCLES are lives.
SEED=${SEED:-1}
LIVES=${LIVES:-${CYCLES:-5}}
ATTACKS=${ATTACKS:-all}
LIFE_MS=${LIFE_MS:-2000}
# What a spinning neighbour leaves the honest guest, of that so much must be left.
LEAST_PERCENT=${LEAST_PERCENT:-70}
# Lines that the driver domain may write about one life: three kinds of complaints of four devices, 16 each; and what it says of any guest.
MOST_LINES=300
# What all lives together may cost of Xen's own pages: less than one for each life, or it would be a leak.
XENS_PAGES=2
# More words for its command line.
MORE=$MORE

# Honest: it writes and verifies, reads small pieces one after the other, fetches a file again and again, and says by its own clock how often.
cat >honest <<'JOB'
. /net.sh
net_up 10.9.0.1/24
: >/tmp/file
pattern write /tmp/file 7 262144
net_reach 10.9.0.2 60 || exit
disk() {
    local round=0
    while round=$((round + 1)) && pattern write /dev/vda "$((round % 256))" 1048576 && pattern verify /dev/vda "$((round % 256))" 1048576; do
        echo "$round" >/tmp/disk
    done
    echo "guest: WRONG disk"
}
net() {
    local round=0
    while :; do
        if ! wget -q -T 20 -O /tmp/fetched http://10.9.0.2/file; then
            echo "guest: nothing was fetched"
        elif cmp /tmp/fetched /tmp/file; then
            round=$((round + 1))
            echo "$round" >/tmp/net
        else
            echo "guest: WRONG net"
        fi
    done
}
# Requests that wait for each other.
small() {
    local round=0
    while round=$((round + 1)) && dd if=/dev/vda of=/dev/null bs=4k count=16 iflag=direct 2>/dev/null; do
        echo "$round" >/tmp/small
    done
    echo "guest: WRONG small"
}
echo 0 | tee /tmp/disk /tmp/small >/tmp/net
disk &
net &
small &
while :; do
    read -r up _ </proc/uptime
    read -r disk </tmp/disk
    read -r net </tmp/net
    read -r small </tmp/small
    echo "guest: at $up disk $disk net $net small $small"
    sleep 0.25
done
JOB
cat >peer <<'JOB'
. /net.sh
net_up 10.9.0.2/24
mkdir /tmp/www
: >/tmp/www/file
pattern write /tmp/www/file 7 262144
httpd -h /tmp/www
sleep 100000
JOB

HONEST_LOG=$CONSOLES/guest-honest.log
HOSTILE_LOG=$CONSOLES/guest-hostile.log
DRIVER_LOG=$CONSOLES/guest-driver-domain.log

honest_come() {
    make_guest peer cloud peer "$(guest_nic)" || fail "the honest guest's peer could not be created"
    make_guest honest cloud honest "$(guest_disk blk0:label=first)" "$(guest_nic)" || fail "the honest guest could not be created"
    wait_file_text "$HONEST_LOG" "guest: at" 60 || fail "the honest guest does not work"
}
honest_go() {
    local name
    for name in honest peer; do
        xl destroy "$name" || fail "$name cannot be destroyed"
        wait_domain_gone "$name" || fail "$name does not go away"
    done
}
# check_honest: what the honest guest found is right so far.
check_honest() {
    grep -aE "WRONG|differ" "$HONEST_LOG" && fail "the honest guest found something wrong"
    return 0
}

# make_hostile SEED ATTACKS MORE: comes with two disks and two NICs, one of each by grants, and begins.
make_hostile() {
    local disks nics
    disks="$(guest_disk blk0:label=second)"
    disks="${disks% ]}, $(granting_disk ram:1M xvdb | sed 's/^disk = \[ //')"
    nics="$(guest_nic)"
    nics="${nics% ]}, $(granting_nic | sed 's/^virtio = \[ //')"
    fresh_console hostile
    guest_config hostile >/tmp/hostile.cfg
    printf '%s\n' 'kernel = "/bed/hostile.img"' 'memory = 16' 'vcpus = 2' "$disks" "$nics" \
        "extra = \"backend=$(xl domid driver-domain) seed=$1 do=$2 life=$LIFE_MS $3\"" >>/tmp/hostile.cfg
    create_domain hostile /tmp/hostile.cfg || fail "the hostile guest of seed $1 could not be created"
    wait_file_text "$HOSTILE_LOG" "hostile: begins" 20 "cannot go on" || fail "the hostile guest: $(tail -n 3 "$HOSTILE_LOG")"
}

# samples FROM TO: seconds, rounds of the disk, of the net and of small reads, between the first and the last of these lines of the honest guest's console.
samples() {
    sed -n "$1,$2p" "$HONEST_LOG" | tr -d '\r' | awk '
        $1 == "guest:" && $2 == "at" && NF == 9 { if (!n++) { t = $3; d = $5; m = $7; s = $9 } t2 = $3; d2 = $5; m2 = $7; s2 = $9 }
        END { print t2 - t, d2 - d, m2 - m, s2 - s }'
}
# lines: how many lines the honest guest has said.
lines() {
    wc -l <"$HONEST_LOG"
}

# cpu HOSTILE: milliseconds that Dom0, the driver domain and the hostile guest have computed so far.
cpu() {
    local domain facts
    for domain in 0 "$(xl domid driver-domain)" "$1"; do
        facts=$(xen-facts domain "$domain" 2>/dev/null)
        facts=${facts##*cpu_ns=}
        printf '%s ' "$((${facts:-0} / 1000000))"
    done
}

# live SEED ATTACKS MORE: a life: it sets $sample to what the honest guest did meanwhile.
live() {
    local domain first last drivers_lines start took_ms cpu
    drivers_lines=$(wc -l <"$DRIVER_LOG")
    make_hostile "$@"
    domain=$(xl domid hostile)
    first=$(lines) cpu=$(cpu "$domain")
    wait_file_text "$HOSTILE_LOG" "hostile: ends" "$((LIFE_MS / 1000 + 1))" "cannot go on"
    last=$(lines) cpu+=$(cpu "$domain")
    start=${EPOCHREALTIME/./}
    if xl domid hostile >/dev/null 2>&1; then
        xl destroy hostile >destroy.log 2>&1
    fi
    wait_domain_gone hostile 20 || fail "the hostile guest of seed $1 is a zombie"
    took_ms=$(((${EPOCHREALTIME/./} - start) / 1000))
    sample=$(samples "$first" "$last")
    drivers_lines=$(($(wc -l <"$DRIVER_LOG") - drivers_lines))
    tr -d '\r' <"$HOSTILE_LOG" | grep -a "hostile: round" | tail -1 | sed 's/.*hostile: /    /'
    echo "seed $1, $2: dom$domain: s, disk, net, small: $sample; gone in $took_ms ms; $drivers_lines lines of the driver domain"
    # It may be gone before the second look: then its share is not known.
    echo "    ms of Dom0, driver domain, hostile guest: $(awk '{ print $4 - $1, $5 - $2, $6 - $3 }' <<<"$cpu"); pages of the driver domain or free: $(($(guest_pages driver-domain) + $(xen_free_pages)))"
    grep -aE "PANIC|FATAL|cannot go on|honest:" "$HOSTILE_LOG" && fail "the hostile guest of seed $1 is not served"
    grep -aE "PANIC|FATAL|ERROR" "$DRIVER_LOG" && fail "the driver domain is not well after seed $1"
    [ "$drivers_lines" -le "$MOST_LINES" ] || fail "the driver domain wrote $drivers_lines lines about the life of seed $1"
    check_honest
}

# percent SAMPLE BASELINE: disk, net and small reads, in percent of those of the baseline.
percent() {
    awk -v one="$1" -v other="$2" 'BEGIN {
        split(one, a, " "); split(other, b, " ")
        for (i = 2; i <= 4; i++) printf "%d ", (a[1] && b[i]) ? 100 * (a[i] / a[1]) / (b[i] / b[1]) : 0
    }'
}

# pages_in MEMORY: the pages in what measure_memory has set.
pages_in() {
    local pages=${1% pages its or free}
    echo "${pages##* }"
}
# nothing_is_kept TARGET: as same_memory, but for the pages of Xen's own that a life of another kind may cost once.
nothing_is_kept() {
    local before=$memory used_before=$used lost
    measure_memory "$1"
    [ "${memory% * pages its or free}" = "${before% * pages its or free}" ] || fail "before: $before; now: $memory"
    lost=$(($(pages_in "$before") - $(pages_in "$memory")))
    [ "$lost" -le "$XENS_PAGES" ] || fail "$lost pages are lost"
    [ "$((used - used_before))" -le "$MEMORY_SLACK_BYTES" ] || fail "$used bytes of memory are used, before the lives it were $used_before"
}

start_driver_domain 'memory = 12' 'extra = "ip=10.9.0.9/24"'
honest_come
live 0 spin end=stay
baseline=$sample
# What the driver domain, Xen and Dom0 keep grows with the first guests of each kind, and with the first attacks.
live 0 all end=stay
honest_go
measure_memory blk0:label=second
honest_come

total="0 0 0 0"
begin=$(host clock)
seed=$SEED
while :; do
    for attack in $ATTACKS; do
        # Each third one goes on until it is destroyed.
        more=$MORE
        [ $((seed % 3)) -ne 0 ] || more=end=stay
        live "$seed" "$attack" "$more"
        read -r disk_percent net_percent small_percent <<<"$(percent "$sample" "$baseline")"
        echo "RATE $attack: disk $disk_percent %, net $net_percent %, small reads $small_percent % of those beside a spinning neighbour"
        total=$(echo "$total $sample" | awk '{ print $1 + $5, $2 + $6, $3 + $7, $4 + $8 }')
    done
    seed=$((seed + 1))
    if [ -n "$MINUTES" ]; then
        [ $(($(host clock) - begin)) -lt $((MINUTES * 60)) ] || break
    else
        [ "$seed" -lt $((SEED + LIVES)) ] || break
    fi
done
honest_go
nothing_is_kept blk0:label=second

read -r disk_percent net_percent small_percent <<<"$(percent "$total" "$baseline")"
echo "all: disk $disk_percent %, net $net_percent %, small reads $small_percent % of those beside a spinning neighbour"
for share in "$disk_percent" "$net_percent" "$small_percent"; do
    [ "$share" -ge "$LEAST_PERCENT" ] || fail "the honest guest has less than $LEAST_PERCENT % left"
done
