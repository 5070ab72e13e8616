# promise: Guests' work goes on while xenstored stands still, while all of Dom0's programs do, and after the driver domain itself was paused, for seconds and for longer than any disk may take; no request fails, nothing is lost, and who comes then is served.
# time: 600
# xen: release
# disk: empty 64M
# nic: user
# service: qemu-nbd 64M

. /bed/work.sh
CONSOLE=$CONSOLES/guest-driver-domain.log
STILL_S=10
# Longer than a disk of the machine or an NBD server may take for a command: these time limits are over when the domain runs again.
LONG_S=40
# Of each kind of work at least so much is done in STILL_S; whoever waited for what stands still would do none.
LEAST=2

WORK="recorded verified fetched"

# note: what the guests have done so far. Their last lines are in the logs by now.
declare -A noted
note() {
    sleep 1
    for name in one two; do
        for what in $WORK; do
            noted[$name-$what]=$(times_done "$name" "$what")
        done
    done
}
# since NAME WHAT: how often a guest has done it since then.
since() {
    echo $(($(times_done "$1" "$2") - noted[$1-$2]))
}
# between NAME WHAT FROM UNTIL: how often it has done it in that part of its own time, in hundredths of a second.
between() {
    tr -d '\r.' <"$CONSOLES/guest-$1.log" | grep "^guest: $2" | awk -v from="$3" -v until="$4" '$5 > from && $5 < until' | wc -l
}
# lines_of_all: how many lines there are in the logs.
lines_of_all() {
    cat "$CONSOLES"/guest-*.log | wc -l
}
# status_is_answered: the endpoint has its address, and answers.
status_is_answered() {
    [ "$(xenstore-read "/local/domain/$(xl domid driver-domain)/data/ip")" = 10.0.2.15 ] || fail "the driver domain has lost its address"
    host metrics >"$OUT/metrics" || fail "the metrics: $(tail -5 "$OUT/metrics")"
}

work 1 2 >job-1
work 2 1 >job-2
start_driver_domain 'memory = 32' 'extra = "ip=dhcp"'
wait_node "/local/domain/$(xl domid driver-domain)/data/ip" 10.0.2.15 30 || fail "the driver domain does not say its address"
make_guest one cloud job-1 "$(guest_disk blk0)" "$(guest_nic)" || fail "a guest could not be created"
make_guest two cloud job-2 "$(guest_disk "nbd:10.0.2.2:$QEMU_NBD_PORT/disk")" "$(guest_nic)" || fail "another guest could not be created"
all_goes_on one two

# A guest that is asked for meanwhile is there afterwards.
xenstored=$(cat /run/xenstored.pid)
kill -STOP "$xenstored"
make_guest three cloud /dev/stdin "$(guest_disk ram:2M)" <<'JOB' &
pattern write /dev/vda 3 2097152 && pattern verify /dev/vda 3 2097152 && echo "guest: is served"
sleep 1000
JOB
three=$!
note
sleep "$STILL_S"
for name in one two; do
    for what in $WORK; do
        echo "$STILL_S s without xenstored: $name has $what $(since "$name" "$what") times"
        [ "$(since "$name" "$what")" -ge "$LEAST" ] || fail "$name did not go on"
    done
done
grep -q "^State:.*stopped" "/proc/$xenstored/status" || fail "xenstored was not stopped"
host metrics >"$OUT/metrics" || fail "the metrics: $(tail -5 "$OUT/metrics")"
xl_waits=$(kill -0 "$three" && echo yes)
kill -CONT "$xenstored"
[ "$xl_waits" = yes ] || fail "a guest was created without xenstored"
wait "$three" || fail "the guest that was asked for without xenstored could not be created"
wait_guest_message three "guest: is served" || fail "the guest that was asked for without xenstored is not served"
xl destroy three || fail "it cannot be destroyed"
wait_domain_gone three || fail "it does not go away"
all_goes_on one two

# Dom0 cannot be paused from within: Xen refuses that to a domain. This is the nearest: all its programs stand still, but for this one, which sleeps;
# nobody reads a console, nobody answers in xenstore. Guests tell later when they have worked.
declare -A began
note
for name in one two; do
    began[$name]=$(guest_said "$name" "guest: .* at " | tr -d .)
done
kill -STOP -1
lines=$(lines_of_all)
sleep "$STILL_S"
lines=$(($(lines_of_all) - lines))
kill -CONT -1
[ "$lines" -eq 0 ] || fail "$lines lines came while Dom0 stood still"
sleep 1
for name in one two; do
    for what in $WORK; do
        times=$(between "$name" "$what" $((began[$name] + 50)) $((began[$name] + 100 * STILL_S)))
        echo "$STILL_S s without Dom0: $name has $what $times times"
        [ "$times" -ge "$LEAST" ] || fail "$name did not go on"
    done
done
status_is_answered
all_goes_on one two

# For the driver domain the clock jumps.
for seconds in "$STILL_S" "$LONG_S"; do
    xl pause driver-domain || fail "the driver domain cannot be paused"
    note
    sleep "$seconds"
    for name in one two; do
        for what in $WORK; do
            [ "$(since "$name" "$what")" -eq 0 ] || fail "$name has $what something, which nobody can have served"
        done
    done
    xl unpause driver-domain || fail "the driver domain does not go on"
    all_goes_on one two
    status_is_answered
    echo "$seconds s without the driver domain: the guests have waited, and go on"
done
nothing_is_lost one two
grep -E "WATCHDOG|goes on, for the|panic| ERROR " "$CONSOLE" && fail "the driver domain complains"
grep " WARN " "$CONSOLE"
for name in one two; do
    xl destroy "$name" || fail "$name cannot be destroyed"
    wait_domain_gone "$name" || fail "$name does not go away"
done
