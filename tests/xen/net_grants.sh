# promise: A guest whose NIC and disk the driver domain reaches by grants alone exchanges files with one whose memory it maps, both ways, and carries TCP both ways.
# time: 150

cat >job <<'JOB'
set -e
. /net.sh
net_up 10.9.0.$(cat /number)/24
mkdir /tmp/www
: >/tmp/www/file
pattern write /tmp/www/file "$(cat /number)" 33554432
sha256sum </tmp/www/file >/tmp/www/sum
httpd -h /tmp/www
iperf3 -s -D
peer=10.9.0.$((3 - $(cat /number)))
net_meet up "$peer"
wget -q -O - "http://$peer/file" | sha256sum >/tmp/sum
wget -q -O - "http://$peer/sum" | cmp - /tmp/sum
for way in "" -R; do
    iperf3 -c "$peer" -t 2 $way >/tmp/report
    grep receiver /tmp/report | sed 's/^/guest: /'
    net_meet "way$way" "$peer"
done
net_meet done "$peer"
sleep 3
JOB
# number N: the folder of the guest that has this number.
number() {
    mkdir -p "number$1"
    echo "$1" >"number$1/number"
    echo "number$1"
}

start_driver_domain 'memory = 24'
disk=$(granting_disk ram:1M)
GUEST_LAYER=net GUEST_FILES=$(number 1) make_guest mapped cloud job "$(guest_nic)" || fail "the first guest could not be created"
GUEST_LAYER=net GUEST_FILES=$(number 2) make_guest granting grants job "$disk" "$(granting_nic)" || fail "the guest that grants could not be created"
for name in mapped granting; do
    wait_guest_message "$name" "the job ended with status 0" 100 || fail "the job of $name"
    tr -d '\r' <"$CONSOLES/guest-$name.log" | sed -n "s/^guest: /$name: /p"
    wait_domain_gone "$name" || fail "$name does not go away"
done
