# promise: A guest runs Debian from a partition of a physical disk: systemd comes up, dpkg installs a package, what was written is there after power-off; 8 MiB are enough for the driver domain.
# time: 400
# disk: debian
# host: debian

cat >job <<'JOB'
set -e
# No service of the system failed.
[ "$(systemctl is-active multi-user.target)" = active ]
[ -z "$(systemctl --failed --no-legend --plain)" ]
echo "guest: systemd has reached multi-user.target"
dpkg --install /root/hello.deb | cat
[ "$(hello)" = "Hello, world!" ]
[ "$(dpkg-query --show --showformat='${db:Status-Abbrev}' hello)" = "ii " ]
# Every file of every package has the checksum that its package says: they are read through our disk.
sync
echo 3 >/proc/sys/vm/drop_caches
wrong=$(dpkg --verify 2>&1 || true)
[ -z "$wrong" ] || { echo "guest: dpkg --verify: $wrong"; exit 1; }
echo "guest: $(cat /var/lib/dpkg/info/*.md5sums | wc -l) files verified"
mkdir /root/written
for size in 0 1 511 512 4095 4096 4097 65536 1000003 16777216; do
    head -c "$size" /dev/urandom >"/root/written/$size"
done
cp /usr/bin/hello /root/written/
sync
echo 3 >/proc/sys/vm/drop_caches
for file in /root/written/*; do
    sum=$(sha256sum "$file")
    echo "guest: wrote ${sum%% *} $file"
done
JOB

start_driver_domain
make_guest debian cloud job 'extra = "console=hvc0 quiet panic=1 TERM=dumb rdinit=/init root=/dev/vda"' "$(guest_disk blk0:label=debian)" \
    || fail "the guest could not be created"
start=$SECONDS
wait_guest_message debian "guest: systemd has reached" 200 || fail "systemd does not come up"
echo "systemd came up in $((SECONDS - start)) s"
wait_guest_message debian "the job ended with status 0" 200 || fail "the guest's job"
grep -q "debian login:" "$CONSOLES/guest-debian.log" || fail "there is no login prompt"
wait_domain_gone debian 60 || fail "the guest does not power off"
# Perhaps behind the prompt.
grep -o "guest: .*" "$CONSOLES/guest-debian.log"
