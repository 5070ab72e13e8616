# promise: With physmap=balloon the same RAM is the window's while nobody needs it, and a volume's when one is opened; each guest's data is right, and the books add up.
# clock: instructions

# Of the driver domain's 16 MiB, in pages. The second volume leaves less than the first has let the window take.
RAM_PAGES=4096
FIRST_MIB=8
SECOND_MIB=11

# serve MIB: a guest writes and verifies a volume of that size, through whatever window there is.
serve() {
    cat >job <<JOB
pattern write /dev/vda 7 8388608 && pattern verify /dev/vda 7 8388608 && dd if=/dev/vda of=/dev/null bs=1M 2>/dev/null
JOB
    make_guest guest cloud job "$(guest_disk "ram:$1M")" || fail "the guest with $1 MiB could not be created"
    wait_guest_message guest "the job ended with status 0" || fail "the job of the guest with $1 MiB"
    wait_domain_gone guest || fail "the guest with $1 MiB does not go away"
}

# ballooned: how many pages of RAM are out of it; fails when the books do not add up.
ballooned() {
    local line
    line=$(memory_report | grep "physmap:")
    [[ $line =~ populated\ ([0-9]+)\ \+\ ballooned\ ([0-9]+)\ .*\ =\ [0-9]+\ frames$ ]] || fail "the books do not add up: $line"
    [ "$((BASH_REMATCH[1] + BASH_REMATCH[2]))" -eq "$RAM_PAGES" ] || fail "there are not $RAM_PAGES pages: $line"
    echo "${BASH_REMATCH[2]}"
}

start_driver_domain 'extra = "physmap=balloon"'
serve "$FIRST_MIB"
first=$(ballooned) || fail "$first"
echo "the window has $first pages of RAM"
serve "$SECOND_MIB"
second=$(ballooned) || fail "$second"
echo "after a larger volume it has $second"
[ "$first" -gt $((RAM_PAGES - (SECOND_MIB << 8))) ] || fail "the window had too little to give any back"
[ "$second" -le $((RAM_PAGES - (SECOND_MIB << 8))) ] || fail "the window has given nothing back"
grep -E " (WARN|ERROR) " "$CONSOLES/guest-driver-domain.log" && fail "the driver domain complains"
true
