# promise: A driver domain without the rights of its FLASK type refuses guests, and says what to do.

: >job
start_driver_domain 'seclabel = "system_u:system_r:domU_t"'
make_guest guest cloud job "$(guest_disk ram:1M)" && fail "a guest was created all the same"
grep -q "refused: .*driver_domain_t" "$CONSOLES/guest-driver-domain.log" || fail "the console does not say what to do"
