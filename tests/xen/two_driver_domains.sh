# promise: A guest has one disk from each of two driver domains, and uses both at once.

cat >job <<'JOB'
set -e
for disk in vda vdb; do
    yes "$disk" | head -c 2097152 >/tmp/$disk
    dd if=/tmp/$disk of=/dev/$disk bs=64k oflag=direct 2>/dev/null &
done
wait
for disk in vda vdb; do
    dd if=/dev/$disk bs=64k iflag=direct 2>/dev/null | cmp - /tmp/$disk
done
JOB

start_driver_domain
driver_domain_config | sed 's/^name = .*/name = "driver-domain-2"/' >second.cfg
xl create second.cfg || fail "the second driver domain could not be created"
wait_node "/local/domain/$(xl domid driver-domain-2)/data/ready" 1 30 || fail "the second driver domain is not ready"
disks="disk = [ "
for backend in driver-domain:xvda driver-domain-2:xvdb; do
    disks="$disks \"backend=${backend%:*}, vdev=${backend#*:}, specification=virtio, backendtype=standalone, format=raw, access=rw, grant_usage=0, target=ram:2M\","
done
make_guest guest cloud job "$disks ]" || fail "the guest could not be created"
wait_guest_message guest "the job ended with status 0" || fail "the guest's job"
wait_domain_gone guest || fail "the guest does not go away"
for backend in driver-domain driver-domain-2; do
    grep -q "detached: .*writes: [1-9]" "$CONSOLES/guest-$backend.log" || fail "$backend served no writes"
done
xl destroy driver-domain-2
