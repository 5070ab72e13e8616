# promise: The driver domain obeys xl shutdown and xl reboot.

start_driver_domain
xl shutdown -w driver-domain || fail "xl shutdown"
wait_domain_gone driver-domain || fail "the driver domain does not power off"
grep -q "asked to end: PowerOff" "$CONSOLES/guest-driver-domain.log" || fail "it was not asked"
start_driver_domain 'on_reboot = "restart"'
first=$(xl domid driver-domain)
xl reboot driver-domain || fail "xl reboot"
for _ in $(seq 30); do
    second=$(xl domid driver-domain 2>/dev/null)
    [ -n "$second" ] && [ "$second" != "$first" ] && break
    sleep 0.5
done
[ "$second" != "$first" ] || fail "the driver domain does not come back"
wait_node "/local/domain/$second/data/ready" 1 30 || fail "the driver domain is not ready after its reboot"
