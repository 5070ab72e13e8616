# promise: A NIC under pin-macs= keeps its own address, others can take on another; those under isolate= reach the others and the driver domain, but not each other; tagged frames reach the guests that have the VLAN, and nobody else.
# time: 150

cat >head <<'JOB'
set -e
. /net.sh
# reach ADDRESS: it answers, at the latest after some seconds. lost ADDRESS: it answers not one of five.
reach() {
    net_reach "$1" 20 || { echo "guest: does not reach $1"; exit 1; }
}
lost() {
    ! ping -c 5 -i 0.2 -W 1 "$1" >/dev/null || { echo "guest: reaches $1"; exit 1; }
}
# address MAC: from now on it sends from this one, and takes what comes for it.
address() {
    ip link set eth0 down
    ip link set eth0 address "$1"
    ip link set eth0 up
}
vlan() {
    ip link add link eth0 name "eth0.$1" type vlan id "$1"
    net_up "$2" "eth0.$1"
}
# meet OWN OTHER: tells the third guest OWN, and waits until somebody has told it OTHER.
meet() {
    echo >"/dev/tcp/10.9.0.3/$1"
    until wget -q -T 5 -O /dev/null "http://10.9.0.3/$2" 2>/dev/null; do
        sleep 0.2
    done
}
JOB
# Isolated from the second, and free to take on another address.
cat head - >job1 <<'JOB'
net_up 10.9.0.1/24
vlan 5 10.9.5.1/24
reach 10.9.0.9
reach 10.9.0.3
reach 10.9.5.3
meet 1001 1002
lost 10.9.0.2
address 02:00:00:00:00:99
reach 10.9.0.9
reach 10.9.0.3
lost 10.9.0.2
meet 2001 2002
JOB
# Isolated, too. It has another VLAN with the same network.
cat head - >job2 <<'JOB'
net_up 10.9.0.2/24
vlan 6 10.9.5.2/24
reach 10.9.0.9
reach 10.9.0.3
meet 1002 1001
lost 10.9.0.1
lost 10.9.5.3
meet 2002 2001
JOB
# Pinned.
cat head - >job3 <<'JOB'
net_up 10.9.0.3/24
vlan 5 10.9.5.3/24
reach 10.9.0.9
# It cannot take on another, and still has its own.
ip link set eth0 down
if ip link set eth0 address 02:00:00:00:00:98 2>/dev/null; then
    echo "guest: reaches another address"
    exit 1
fi
ip link set eth0 up
[ "$(net_mac)" = 02:00:00:00:00:03 ]
ip address show dev eth0 | grep -q 10.9.0.3 || ip address add 10.9.0.3/24 dev eth0
reach 10.9.0.9
mkdir /tmp/www
httpd -h /tmp/www
for port in 1001 1002 2001 2002; do
    (nc -l -p "$port" >/dev/null && touch "/tmp/www/$port") &
done
echo "guest: is pinned"
sleep 1000
JOB

start_driver_domain \
    'extra = "ip=10.9.0.9/24 pin-macs=02:00:00:00:00:03 isolate=02:00:00:00:00:01,02:00:00:00:00:02"'
make_guest guest3 cloud job3 "$(guest_nic 02:00:00:00:00:03)" || fail "guest3 could not be created"
wait_guest_message guest3 "guest: is pinned" || fail "guest3: $(grep "guest: does\|guest: reaches" "$CONSOLES/guest-guest3.log")"
for number in 1 2; do
    make_guest "guest$number" cloud "job$number" "$(guest_nic "02:00:00:00:00:0$number")" || fail "guest$number could not be created"
done
for number in 1 2; do
    wait_guest_message "guest$number" "the job ended with status 0" 100 \
        || fail "guest$number: $(grep "guest: does\|guest: reaches" "$CONSOLES/guest-guest$number.log")"
done
