# promise: A guest that lies about its memory, its grants and its rings gets an error for each lie and is served after it, keeps no grant in use, and is destroyed in the midst of it; guests beside it notice nothing, and nothing is left of any.
# time: 180
# clock: instructions
# guest: rogue
# disk: empty 64M

# The complaints that a device may cause in its life are bounded by drivers/src/virtio/complaints.rs: so many of each of three kinds.
MOST_COMPLAINTS=48

# What tests/guests/rogue must say: each lie, what comes of it, and how the honest requests after it go.
both() {
    printf '%s\n' "$1, read: $2" "$1, write: $2"
}
rings() {
    for lie in "descriptors out of reach" "available ring out of reach" "used ring out of reach" "descriptors misaligned" \
        "available index runs ahead" "head outside of the table" "endless chain" "no place for a status" "readable after writable" \
        "a table of no entries" "4 GiB"; do
        echo "$lie: NEEDS_RESET"
    done
}
expected_memory() {
    echo "ACCESS_PLATFORM, not offered: refused"
    echo "honest: right"
    {
        both "hole" IOERR
        both "distributor" IOERR
        both "registers of the disk" IOERR
        both "address 0" IOERR
        both "beyond all memory" IOERR
        both "beyond all frames" IOERR
        both "grant" IOERR
        both "last page" IOERR
        both "wraps around" NEEDS_RESET
        both "2 GiB" IOERR
        # Memory of its own, as any other: it could write it itself.
        echo "console page, write: OK"
        echo "xenstore page, write: OK"
        both "magic page" OK
        both "shared info" OK
        both "grant table" OK
        echo "header in a hole: IOERR"
        echo "status in a hole: given back without a status"
        echo "second buffer in a hole: IOERR"
        echo "table in a hole: NEEDS_RESET"
        echo "page before it is given back, read: OK"
        both "page given back" IOERR
        both "memory and page given back" IOERR
        echo "page taken again, read: OK"
        rings
    } | sed 's/$/; next: right/'
    echo "content of that page: right"
    echo "in a row: 1000 lies refused, 1000 honest requests right"
}
expected_grants() {
    echo "without ACCESS_PLATFORM: refused"
    echo "honest: right"
    {
        both "bogus reference" IOERR
        both "reference 0" IOERR
        both "reference beyond the table" IOERR
        both "largest reference" IOERR
        both "reference of more than 32 bits" IOERR
        both "plain address" IOERR
        both "plain address of a hole" IOERR
        both "last page" IOERR
        both "wraps around" NEEDS_RESET
        both "granted to another domain" IOERR
        both "grant of a hole" IOERR
        both "grant of registers" IOERR
        both "grant of the last frame" IOERR
        both "revoked" IOERR
        echo "granted for reading, read: IOERR"
        echo "granted for reading, write: OK"
        both "granted for writing" OK
        both "granted and plain" IOERR
        both "two pages, the second not granted" IOERR
        both "two pages, both granted" OK
        echo "header not granted: IOERR"
        echo "status not granted: given back without a status"
        echo "status granted for reading: given back without a status"
        echo "table granted: OK"
        echo "table not granted: NEEDS_RESET"
        echo "used ring granted for reading: NEEDS_RESET"
        echo "descriptors granted for writing: OK"
        echo "used ring runs out of its grant: NEEDS_RESET"
        rings
    } | sed 's/$/; next: right; in use: 0/'
    echo "in a row: 1000 lies refused, 1000 honest requests right; in use: 0"
}

# The guests beside write patterns past their page cache, and verify them, until they are destroyed.
cat >job <<'JOB'
round=0
while round=$((round + 1)) && pattern write /dev/vda "$((round % 256))" 4194304 && pattern verify /dev/vda "$((round % 256))" 4194304; do
    echo "guest: written and verified, $round"
done
JOB
# written NAME: how often guest NAME has done that.
written() {
    grep -c "guest: written and verified" "$CONSOLES/guest-$1.log"
}
# both_work_on: waits until both have done a round more that began after now.
both_work_on() {
    local name
    for name in mapped granting; do
        wait_guest_message "$name" "written and verified, $(($(written "$name") + 2))" || fail "$name does not work on"
    done
}

# lie LIES DISK TARGET: a rogue that tells these lies about a disk (guest_disk or granting_disk) of TARGET comes, says what it must, and is destroyed.
lie() {
    local lies=$1 log=$CONSOLES/guest-rogue.log domain complaints took_ms start
    expected_"$lies" | sort >expected
    make_own_guest rogue rogue 'memory = 16' "extra = \"lies=$lies backend=$(xl domid driver-domain)\"" "$($2 "$3")" \
        || fail "the rogue could not be created"
    domain=dom$(xl domid rogue)
    wait_file_text "$log" "goes on until it is destroyed" 60 "cannot go on" || fail "the rogue: $(tail -n 3 "$log")"
    sleep 1
    start=${EPOCHREALTIME/./}
    xl destroy rogue >destroy.log 2>&1 || fail "the rogue cannot be destroyed: $(cat destroy.log)"
    took_ms=$(((${EPOCHREALTIME/./} - start) / 1000))
    # When a backend does not let go, xl gives up after a while, and says so.
    grep -q "error" destroy.log && fail "xl destroy is not content: $(cat destroy.log)"
    wait_domain_gone rogue 10 || fail "the rogue is a zombie"
    tr -d '\r' <"$log" | sed -n 's/.* rogue: //p' | grep -v "goes on until" | sort >said
    diff expected said || fail "the rogue does not say what it must"
    complaints=$(grep -c "WARN .*$domain/" "$CONSOLES/guest-driver-domain.log")
    echo "lies about $lies, $3: $(wc -l <said) answers, $complaints complaints; xl destroy took $took_ms ms"
    [ "$complaints" -le "$MOST_COMPLAINTS" ] || fail "the driver domain has $complaints complaints"
}

guests_come() {
    make_guest mapped cloud job "$(guest_disk ram:8M)" || fail "a guest could not be created"
    make_guest granting grants job "$(granting_disk ram:8M)" || fail "a guest could not be created"
    both_work_on
}
guests_go() {
    for name in mapped granting; do
        echo "$name: $(written "$name") rounds"
        grep -iE "error|the job ended|still in use|broken" "$CONSOLES/guest-$name.log" && fail "$name noticed something"
        xl destroy "$name" || fail "$name cannot be destroyed"
        wait_domain_gone "$name" || fail "$name does not go away"
    done
}

start_driver_domain 'memory = 48'
# What Xen keeps for the driver domain grows with the first guests.
guests_come
guests_go
pages=$(xen_free_pages)

guests_come
# In RAM a request is done at once; a disk takes its time, and what is read from it is copied to the guest later.
for target in ram:8M blk0; do
    lie memory guest_disk "$target"
    both_work_on
    lie grants granting_disk "$target"
    both_work_on
done
guests_go

grep -E "PANIC|FATAL|ERROR" "$CONSOLES/guest-driver-domain.log" && fail "the driver domain is not well"
# It says so after each guest, too; the line about its pager comes with a question only.
xl sysrq driver-domain m
wait_guest_message driver-domain "pager: " 10 || fail "the driver domain does not say what it has"
census=$(grep -o "physmap: .*" "$CONSOLES/guest-driver-domain.log" | tail -1)
echo "$census"
[[ $census == *" + foreign 0 + grant 0 + "*" = "* ]] || fail "the driver domain's books: $census"
[ "$(xen_free_pages)" = "$pages" ] || fail "Xen has $(xen_free_pages) free pages, not $pages"
