# promise: The driver domain answers on the network: ping, a status page, metrics that Prometheus' own tool accepts, which count what a guest did; garbage, half a request, many connections and a scan of its ports do no harm.
# time: 200
# nic: user

cat >job <<'JOB'
set -e
. /net.sh
net_up dhcp
ping -c 5 -i 0.2 -W 2 10.0.2.15 | grep " 0% packet loss"
dd if=/dev/zero of=/dev/vda bs=64k count=16 oflag=direct 2>/dev/null
[ "$(wget -q -O - http://10.0.2.15/metrics | grep -c '^[a-z]')" -gt 10 ]
echo "guest: has seen it"
open=
for port in $(seq 1 1100); do
    ! (exec 3<>"/dev/tcp/10.0.2.15/$port") 2>/dev/null || open="$open $port"
done
echo "guest: open ports:$open"
[ "$open" = " 80" ]
# A guest pesters, too.
for round in $(seq 20); do
    head -c 100000 /dev/urandom | nc -w 1 10.0.2.15 80 >/dev/null || true
done
head -c 100000 /dev/urandom | nc -u -w 1 10.0.2.15 68 || true
wget -q -O /dev/null http://10.0.2.15/
sleep 1000
JOB

start_driver_domain 'extra = "ip=dhcp"'
wait_node "/local/domain/$(xl domid driver-domain)/data/ip" 10.0.2.15 30 || fail "the driver domain does not say its address"
host metrics >"$OUT/metrics-before" || fail "the metrics: $(tail -5 "$OUT/metrics-before")"
make_guest guest cloud job "$(guest_disk ram:2M)" "$(guest_nic)" || fail "the guest could not be created"
wait_guest_message guest "guest: has seen it" || fail "the guest's job"
host metrics >"$OUT/metrics" || fail "the metrics: $(tail -5 "$OUT/metrics")"
wc "$OUT/metrics"
for word in requests bytes kicks interrupts evictions uptime; do
    grep -q "^[a-z_]*$word" "$OUT/metrics" || fail "the metrics say nothing of $word"
done
host get / >"$OUT/page.html" || fail "the status page: $(tail -5 "$OUT/page.html")"
grep -qi "<html" "$OUT/page.html" || fail "the status page is none: $(head -5 "$OUT/page.html")"
! host get /nothing >/dev/null || fail "a page that is not there is answered"
host pester || fail "the host could not pester"
wait_guest_message guest "guest: open ports: 80" || fail "the scan of ports: $(guest_said guest "guest: open ports:")"
sleep 5
host metrics >"$OUT/metrics-after" || fail "the metrics after the garbage: $(tail -5 "$OUT/metrics-after")"
! grep -q "the job ended" "$CONSOLES/guest-guest.log" || fail "the guest's job"
