# promise: While two guests with a disk and a NIC each are idle, the driver domain, whose endpoint has its address for good, does not wake once in 10 seconds.
# time: 120
# clock: instructions
# disk: two-partitions
# nic: user

SECONDS_IDLE=10

# What wakes it besides requests: Linux that looks for routers and neighbours by IPv6, and an address by DHCP when half of its time is over.
job() {
    cat <<JOB
set -e
. /net.sh
for disable in /proc/sys/net/ipv6/conf/*/disable_ipv6; do
    [ ! -e "\$disable" ] || echo 1 >"\$disable"
done
net_up 10.9.0.$1/24
net_reach 10.9.0.9
[ "\$(dd if=/dev/vda bs=64k count=16 2>/dev/null | wc -c)" -eq 1048576 ]
echo "guest: is idle"
sleep 1000
JOB
}

# used_in COMMAND...: the ns of processor time that the driver domain used while COMMAND ran.
used_in() {
    local before number
    number=$(xl domid driver-domain)
    before=$(xen-facts domain "$number" | sed 's/.*cpu_ns=//')
    "$@"
    echo $(($(xen-facts domain "$number" | sed 's/.*cpu_ns=//') - before))
}

# The least that it can be told: a question that asks nothing.
ask_nothing() {
    xenstore-write "/local/domain/$(xl domid driver-domain)/control/sysrq" ""
    sleep 1
}

start_driver_domain 'extra = "ip=10.9.0.9/24"'
for number in 1 2; do
    job "$number" >job
    make_guest "guest$number" cloud job "$(guest_disk "blk0:part=$number")" "$(guest_nic)" || fail "guest$number could not be created"
done
for number in 1 2; do
    wait_guest_message "guest$number" "guest: is idle" || fail "guest$number does not become idle"
done
# What was begun ends; what each side knows of the other grows old.
sleep 5

idle=$(used_in sleep "$SECONDS_IDLE")
asked=$(used_in ask_nothing)
echo "in $SECONDS_IDLE idle seconds the driver domain used $idle ns of the processor; to be asked nothing cost it $asked ns"
[ "$asked" -gt 0 ] || fail "it is not seen when the driver domain wakes"
# Who does not wake uses nothing, to the nanosecond.
[ "$idle" -eq 0 ] || fail "the driver domain does not sleep"
