# promise: The driver domain's kernel crashes 20 times at random instructions, at least 5 of them while it serves a device, under the I/O of two guests, and hangs twice: it goes on each time, no request fails, nothing that was written durably is lost, and half of the pauses are below 25 ms.
# time: 600
# xen: release
# clock: instructions
# disk: empty 64M
# nic: user

ROUNDS=${CYCLES:-20}
HANGS=2
# What a pause may be, from the end of one kernel until the next one serves every device: half of them, and each. The guests and
# Dom0, whose xenstored is asked, share the processor with us. Of a hang the second until it is found comes before.
HALF_US=25000
EACH_US=200000

. /bed/work.sh
CONSOLE=$CONSOLES/guest-driver-domain.log
# goes_on_after LETTER ROUND: asks for an end by sysrq LETTER, and waits until guests go on.
goes_on_after() {
    xl sysrq driver-domain "$1"
    wait_file_text "$CONSOLE" "goes on, for the $2. time" 20 || fail "the driver domain does not begin again"
    all_goes_on one two
}

work 1 2 >job-1
work 2 1 >job-2
start_driver_domain 'memory = 32' 'extra = "sysrq=crash ip=10.9.0.9/24"'
make_guest one cloud job-1 "$(guest_disk blk0)" "$(guest_nic)" || fail "a guest could not be created"
make_guest two cloud job-2 "$(guest_disk ram:16M)" "$(guest_nic)" || fail "another guest could not be created"
for name in one two; do
    goes_on "$name" fetched 2
done
for round in $(seq "$ROUNDS"); do
    goes_on_after c "$round"
done
echo "places of the ends:" $(tr -d '\r' <"$CONSOLE" | sed -n 's/.*WATCHDOG as asked: at image + //p' | sort | uniq -c | sort -rn | awk '{ print $1 "x", $2, $3, $4, $5 ";" }')
[ "$(grep -c "WATCHDOG as asked: .*serving a device" "$CONSOLE")" -ge $((ROUNDS / 4)) ] || fail "too few ends came while a device was being served"
for round in $(seq "$HANGS"); do
    goes_on_after h $((ROUNDS + round))
    grep -o "WATCHDOG .*" "$CONSOLE" | tail -1
    [ "$(grep -c "WATCHDOG the loop does not turn" "$CONSOLE")" -eq "$round" ] || fail "it was not found that the loop does not turn"
done
nothing_is_lost one two
pauses=$(tr -d '\r' <"$CONSOLE" | sed -n 's/.*every device goes on, \([0-9]*\) us after.*/\1/p')
[ "$(echo "$pauses" | wc -l)" -eq $((ROUNDS + HANGS)) ] || fail "not every life says how long the pause was"
echo "pauses in us after hangs:" $(echo "$pauses" | tail -n "$HANGS")
pauses=$(echo "$pauses" | sort -n)
echo "pauses in us:" $pauses
[ "$(echo "$pauses" | sed -n "$(((ROUNDS + HANGS) / 2))p")" -le "$HALF_US" ] || fail "half of the pauses are longer than $HALF_US us"
[ "$(echo "$pauses" | tail -1)" -le "$EACH_US" ] || fail "a pause was longer than $EACH_US us"
for name in one two; do
    xl destroy "$name" || fail "$name cannot be destroyed"
    wait_domain_gone "$name" || fail "$name does not go away"
done
