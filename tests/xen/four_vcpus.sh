# promise: Guests with 2 and with 4 vCPUs do I/O from each of them at the same time.
# time: 180

cat >job <<'JOB'
set -e
cpus=$(grep -c ^processor /proc/cpuinfo)
for cpu in $(seq 0 $((cpus - 1))); do
    (
        yes "cpu $cpu" | head -c 1048576 >/tmp/$cpu
        for round in 1 2 3 4; do
            taskset -c $cpu dd if=/tmp/$cpu of=/dev/vda bs=4k seek=$((cpu * 256)) oflag=direct 2>/dev/null
            taskset -c $cpu dd if=/dev/vda of=/tmp/back$cpu bs=4k skip=$((cpu * 256)) count=256 iflag=direct 2>/dev/null
            cmp /tmp/$cpu /tmp/back$cpu || touch /tmp/failed
        done
    ) &
done
wait
[ ! -e /tmp/failed ]
echo "guest: $cpus processors"
JOB

start_driver_domain
for vcpus in 2 4; do
    make_guest "guest$vcpus" cloud job 'memory = 256' "vcpus = $vcpus" "$(guest_disk ram:4M)" || fail "no guest with $vcpus vCPUs"
    wait_guest_message "guest$vcpus" "the job ended with status 0" 120 || fail "the job with $vcpus vCPUs"
    grep -q "guest: $vcpus processors" "$CONSOLES/guest-guest$vcpus.log" || fail "the guest has not $vcpus vCPUs"
    wait_domain_gone "guest$vcpus" || fail "the guest does not go away"
done
