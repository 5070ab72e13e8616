# promise: With physical disks passed through, the driver domain comes up as its shipped configuration says, again after it was destroyed, and writes nothing on its own.
# disk: empty 9M
# disk: two-partitions serial=second
# host: untouched

start_driver_domain
grep -q '^memory = 8$' /tmp/driver-domain.cfg || fail "the configuration is not the shipped one: $(cat /tmp/driver-domain.cfg)"
xl destroy driver-domain
wait_domain_gone driver-domain || fail "the driver domain does not go away"
start_driver_domain
