# promise: A NIC's MAC address is the one in its own entry, in the disk's target, on the command line or a derived one that lasts; it is told in the log and in xenstore; an address that is there already is refused in a sentence, and its owner notices nothing.
# time: 200
# disk: empty 8M
# disk: empty 8M

cat >job <<'JOB'
. /net.sh
echo "guest: is $(cd /sys/class/net; cat eth*/address | tr '\n' ' ')"
sleep 1000
JOB

# mac_is NAME MAC...: the guest has NICs with these addresses, and so it is told.
mac_is() {
    local name=$1 number=0 mac
    wait_guest_message "$name" "guest: is " || fail "$name does not come up"
    for mac in "${@:2}"; do
        [ "$(xenstore-read "/local/domain/$(xl domid driver-domain)/data/nic/$(xl domid "$name")-$number")" = "$mac" ] \
            || fail "xenstore does not say that NIC $number of $name is $mac"
        grep -q "$mac" "$CONSOLES/guest-driver-domain.log" || fail "the console says nothing of $mac"
        number=$((number + 1))
    done
    [ "$(guest_said "$name" "guest: is ")" = "${*:2} " ] || fail "$name is $(guest_said "$name" "guest: is "), not ${*:2}"
}

# derived NAME: the address of the guest's NIC.
derived() {
    wait_guest_message "$1" "guest: is " || fail "$1 does not come up"
    guest_said "$1" "guest: is " | tr -d ' '
}

# gone NAME...: destroys guests.
gone() {
    local name
    for name; do
        xl destroy "$name"
        wait_domain_gone "$name" || fail "$name does not go away"
    done
}

start_driver_domain 'extra = "mac-seed=tested mac=02:00:00:00:00:11@ram:1M"'
make_guest own cloud job "$(guest_nic 02:00:00:00:00:01 02:00:00:00:00:02)" || fail "a guest with addresses of its own could not be created"
mac_is own 02:00:00:00:00:01 02:00:00:00:00:02
make_guest target cloud job "$(guest_disk blk1,mac=02:00:00:00:00:21)" "$(guest_nic)" || fail "a guest with an address in its target could not be created"
mac_is target 02:00:00:00:00:21
make_guest given cloud job "$(guest_disk ram:1M)" "$(guest_nic)" || fail "a guest with an address of the command line could not be created"
mac_is given 02:00:00:00:00:11
gone given

refuses_nic 02:00:00:00:00:01 "02:00:00:00:00:01 is already that of"
refuses_nic 01:00:5e:00:00:01 "01:00:5e:00:00:01"
refuses_nic nonsense "nonsense"
! grep -q "the job ended" "$CONSOLES/guest-own.log" || fail "the owner of the address was disturbed"

make_guest derived cloud job "$(guest_disk blk0)" "$(guest_nic)" || fail "a guest without an address could not be created"
first=$(derived derived)
echo "derived: $first"
case $first in
00:16:3e:*) ;;
*) fail "a derived address is $first" ;;
esac
gone derived own target
xl destroy driver-domain
wait_domain_gone driver-domain || fail "the driver domain does not go away"
start_driver_domain 'extra = "mac-seed=tested"'
make_guest derived cloud job "$(guest_disk blk0)" "$(guest_nic)" || fail "the guest could not be created again"
[ "$(derived derived)" = "$first" ] || fail "with another driver domain the address is $(derived derived), not $first"
