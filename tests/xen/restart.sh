# promise: The driver domain's kernel begins again in the middle of two guests' I/O, again and again: no request fails and nothing is lost; the guests notice a pause.
# time: 300
# disk: file-sets 1 120M
# disk: empty 64M

ROUNDS=${CYCLES:-5}

cat >job <<'JOB'
true >/tmp/go
round=0
while [ -e /tmp/go ]; do
    round=$((round + 1))
    pattern write "$DISK" "$((round % 256))" 8388608 && pattern verify "$DISK" "$((round % 256))" 8388608 || exit
    echo "guest: written and verified, $round"
    [ "$round" -lt "$LAST" ] || rm /tmp/go
done
JOB
(echo "DISK=/dev/vda LAST=1000000" && cat job) >endless

start_driver_domain 'memory = 64' 'extra = "sysrq=crash"'
make_guest one cloud endless "$(guest_disks blk1)" || fail "a guest could not be created"
make_guest two cloud endless "$(guest_disks ram:16M)" || fail "another guest could not be created"
for name in one two; do
    wait_guest_message "$name" "written and verified, 2" || fail "$name does not work"
done
for round in $(seq "$ROUNDS"); do
    xl sysrq driver-domain c
    wait_file_text "$CONSOLES/guest-driver-domain.log" "goes on, for the $round. time" 10 || fail "the driver domain does not begin again"
    for name in one two; do
        done=$(grep -c "written and verified" "$CONSOLES/guest-$name.log")
        wait_guest_message "$name" "written and verified, $((done + 2))" || fail "$name does not go on after round $round"
    done
done
grep -E "I/O error|another word" "$CONSOLES"/guest-one.log "$CONSOLES"/guest-two.log && fail "a request failed"
for name in one two; do
    xl destroy "$name" || fail "$name cannot be destroyed"
    wait_domain_gone "$name" || fail "$name does not go away"
done
