# promise: The bed itself works: FLASK enforces, and a stock guest without any disk runs its job and goes, on Xen with IOREQ servers.

[ "$(flask-getenforce)" = Enforcing ] || fail "FLASK does not enforce"
make_guest plain cloud /dev/stdin <<'JOB' || fail "the guest could not be created"
echo "guest: Linux $(uname -r)"
JOB
wait_guest_message plain "guest: Linux 6." || fail "the guest's job was not run"
wait_domain_gone plain || fail "the guest does not go away"
