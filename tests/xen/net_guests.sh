# promise: Three guests reach each other over the driver domain: ping, TCP both ways, UDP without loss at 2 Mbit/s each, all with offloads and without; 64 MiB by HTTP have their SHA-256.
# time: 240

# Each guest is server to the one before it, and client of the one behind it.
job() {
    local number=$1 next=$(($1 % 3 + 1)) last=$((($1 + 1) % 3 + 1))
    cat <<JOB
set -e
. /net.sh
next=10.9.0.$next
peers="10.9.0.$next 10.9.0.$last"
mkdir -p /tmp/www
net_up 10.9.0.$number/24
: >/tmp/www/file
pattern write /tmp/www/file $number 67108864
sha256sum </tmp/www/file >/tmp/www/sum
httpd -h /tmp/www
iperf3 -s -D
JOB
    cat <<'JOB'
measure() {
    iperf3 -c "$next" "$@" >/tmp/report || { cat /tmp/report; return 1; }
    grep -E "receiver" /tmp/report | sed 's/^/guest: /'
}
net_meet up $peers
for peer in $peers; do
    ping -c 5 -i 0.2 -W 2 "$peer" | grep " 0% packet loss"
done
for state in on off; do
    offloads "$state"
    net_meet "offloads-$state" $peers
    measure -t 3
    measure -t 3 -R
    # Nobody else's TCP is in the way of what must not be lost.
    net_meet "tcp-$state" $peers
    measure -u -b 2M -l 1400 -t 3
    grep -E "receiver" /tmp/report | grep -qF "(0%)"
    net_meet "udp-$state" $peers
done
offloads on
wget -q -O - "http://$next/file" | sha256sum >/tmp/sum
wget -q -O - "http://$next/sum" | cmp - /tmp/sum
echo "guest: the file is the same"
net_meet done $peers
# Another may still look for us.
sleep 5
JOB
}

start_driver_domain
for number in 1 2 3; do
    job "$number" >job
    GUEST_LAYER=net make_guest "guest$number" cloud job "$(guest_nic)" || fail "guest$number could not be created"
done
for number in 1 2 3; do
    wait_guest_message "guest$number" "the job ended with status 0" 200 || fail "the job of guest$number"
    tr -d '\r' <"$CONSOLES/guest-guest$number.log" | sed -n "s/^guest: /guest$number: /p"
done
