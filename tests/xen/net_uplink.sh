# promise: Three guests at once reach the network behind a physical NIC: addresses by DHCP, ping, 64 MiB down and up by HTTP with their SHA-256, TCP both ways; a guest that reboots keeps its MAC address and its lease.
# time: 300
# disk: empty 8M
# nic: user
# service: http
# service: iperf3

cat >job <<JOB
set -e
. /net.sh
net_up dhcp
echo "guest: is \$(net_mac) at \$(net_address)"
ping -c 5 -i 0.2 -W 2 10.0.2.2 | grep " 0% packet loss"
wget -q -O /tmp/file http://10.0.2.2:$HTTP_PORT/
sha256sum /tmp/file | grep -q $HTTP_SHA256
[ "\$(net_put /tmp/file 10.0.2.2 $HTTP_PORT)" = $HTTP_SHA256 ]
echo "guest: 64 MiB came and went"
JOB
cat >measuring <<JOB
$(cat job)
for way in "" -R; do
    iperf3 -c 10.0.2.2 -p $IPERF3_PORT -t 3 \$way >/tmp/report
    grep receiver /tmp/report | sed 's/^/guest: /'
done
JOB
# The first look at the disk is the one before the reboot.
cat >rebooting <<JOB
$(cat job)
if [ "\$(head -c 6 /dev/vda)" != before ]; then
    printf before | dd of=/dev/vda conv=sync,fsync 2>/dev/null
    reboot -f
fi
JOB

start_driver_domain
GUEST_LAYER=net make_guest measuring cloud measuring "$(guest_nic)" || fail "the first guest could not be created"
make_guest plain cloud job "$(guest_nic)" || fail "the second guest could not be created"
make_guest rebooting cloud rebooting 'on_reboot = "restart"' "$(guest_disk blk0)" "$(guest_nic)" || fail "the third guest could not be created"
for name in measuring plain rebooting; do
    wait_guest_message "$name" "the job ended with status 0" 240 || fail "the job of $name"
    tr -d '\r' <"$CONSOLES/guest-$name.log" | sed -n "s/^guest: /$name: /p"
done
[ "$(grep -c "guest: is " "$CONSOLES/guest-rebooting.log")" -eq 2 ] || fail "the guest did not reboot"
[ "$(grep "guest: is " "$CONSOLES/guest-rebooting.log" | tr -d '\r' | sort -u | wc -l)" -eq 1 ] || fail "the guest has other addresses after its reboot"
[ "$(cat "$CONSOLES"/guest-*.log | grep "guest: is " | tr -d '\r' | sort -u | wc -l)" -eq 3 ] || fail "two guests have the same address"
