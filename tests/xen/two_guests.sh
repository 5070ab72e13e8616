# promise: Two guests work at once, each on its own volume, and neither sees the other's data.

job() {
    cat <<JOB
set -e
yes "$1" | head -c 8388608 >/tmp/data
for round in 1 2 3; do
    dd if=/tmp/data of=/dev/vda bs=128k oflag=direct 2>/dev/null
    dd if=/dev/vda of=/tmp/back bs=128k iflag=direct 2>/dev/null
    cmp /tmp/data /tmp/back
done
JOB
}

start_driver_domain 'memory = 32'
job "one" >job1
job "two" >job2
make_guest guest1 cloud job1 "$(guest_disk ram:8M)" || fail "guest1 could not be created"
make_guest guest2 cloud job2 "$(guest_disk ram:8M)" || fail "guest2 could not be created"
wait_guest_message guest1 "the job ended with status 0" || fail "guest1's job"
wait_guest_message guest2 "the job ended with status 0" || fail "guest2's job"
