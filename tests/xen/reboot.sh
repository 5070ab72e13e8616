# promise: A guest that reboots finds its disk again, with what it wrote before.
# time: 90

cat >job <<'JOB'
if [ "$(dd if=/dev/vda bs=512 count=1 skip=130000 2>/dev/null | head -c 6)" = "before" ]; then
    echo "guest: found it again"
    exit 0
fi
printf before | dd of=/dev/vda bs=512 seek=130000 conv=sync,fsync 2>/dev/null
echo "guest: reboots"
reboot -f
JOB

start_driver_domain 'memory = 96' 'ramdisk = "/bed/data.img"'
make_guest guest cloud job 'on_reboot = "restart"' "$(guest_disk initrd)" || fail "the guest could not be created"
wait_guest_message guest "guest: found it again" 80 || fail "the guest did not come back to its disk"
