# promise: A driver domain of 8 MiB serves four guests with a disk and a NIC each, at once: each verifies its files and fetches those of another by HTTP; afterwards no more memory is in use than before.
# time: 400
# disk: file-sets 4 16M
# nic: user

# The driver domain as users get it: boot/driver-domain.cfg.

# Each guest is client of the one behind it.
job() {
    local next=$(($1 % 4 + 1)) number peers=
    for number in 1 2 3 4; do
        [ "$number" -eq "$1" ] || peers+=" 10.9.0.$number"
    done
    cat <<JOB
set -e
. /net.sh
next=10.9.0.$next
peers="$peers"
net_up 10.9.0.$1/24
mount -t ext4 -o ro /dev/vda /mnt
pattern verify-files $1 /mnt/[0-9]*
JOB
    cat <<'JOB'
mkdir -p /tmp/www
ln -s /mnt /tmp/www/files
(cd /mnt && sha256sum [0-9]*) >/tmp/www/sums
httpd -h /tmp/www
net_meet up $peers
wget -q -O /tmp/sums "http://$next/sums"
! cmp -s /tmp/sums /tmp/www/sums
while read -r sum file; do
    [ "$(wget -q -O - "http://$next/files/$file" | sha256sum)" = "$sum  -" ]
done </tmp/sums
echo "guest: $(wc -l </tmp/sums) files of another are the same"
net_meet done $peers
# Another may still look for us.
sleep 5
JOB
}

# make_guests JOB: all four, each on a partition of its own; comes back when they are gone.
make_guests() {
    local number
    for number in 1 2 3 4; do
        "$1" "$number" >job
        make_guest "guest$number" cloud job "$(guest_disk "blk0:label=set$number")" "$(guest_nic)" || fail "guest$number could not be created"
    done
    for number in 1 2 3 4; do
        wait_guest_message "guest$number" "the job ended with status 0" 240 || fail "the job of guest$number"
        wait_domain_gone "guest$number" || fail "guest$number does not go away"
    done
}

start_driver_domain
# The driver domain grows what it needs for four guests.
make_guests job
measure_memory blk0:label=set1
make_guests job
same_memory blk0:label=set1
