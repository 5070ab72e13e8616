# Runs the boot tests named in $TESTS ("NAME:SECONDS ..."), one after the other, and reports each to the host by a line `@test ...`.
#
# Each test runs in its own session, so that all it started can be ended; after it, the domains that it left
# are destroyed and its consoles are put aside.

results=$OUT

# destroy_domains: leaves Dom0 alone on the machine; false when something of a domain stays.
destroy_domains() {
    local round
    for round in 1 2 3; do
        xl list | awk 'NR > 1 && $2 != 0 { print $2 }' | xargs -r -n 1 xl destroy 2>/dev/null
        [ "$(xl list | wc -l)" -eq 2 ] && return 0
        sleep 5
    done
    xl list
    return 1
}

# run_test NAME SECONDS: the test's status; 124 when it takes longer.
run_test() {
    local name=$1 limit=$2 status
    mkdir -p "$results/$name"
    OUT=$results/$name setsid bash "/bed/$name.sh" </dev/null 2>&1 &
    local test=$!
    (sleep "$limit" && echo "it takes longer than $limit s" && kill -TERM -- "-$test") &
    local timer=$!
    wait "$test"
    status=$?
    # What it left running: watchers, guests' readers. Then the timer and its sleep.
    kill -KILL -- "-$test" 2>/dev/null
    pkill -P "$timer" 2>/dev/null
    kill "$timer" 2>/dev/null || status=124
    wait "$timer" 2>/dev/null
    return "$status"
}

for entry in $TESTS; do
    name=${entry%:*}
    echo "@test begin $name"
    start=$EPOCHREALTIME
    run_test "$name" "${entry#*:}"
    status=$?
    seconds=$(awk "BEGIN { print $EPOCHREALTIME - $start }")
    # Logs of failures are for reading: the domains' consoles with the test's own files.
    destroy_domains || { echo "it leaves domains behind that cannot be destroyed" && [ "$status" -ne 0 ] || status=1; }
    if [ "$status" -ne 0 ]; then
        tail -n 8 /var/log/xen/console/guest-*.log
    fi
    mkdir -p "$results/$name/console"
    mv /var/log/xen/console/guest-* "$results/$name/console/" 2>/dev/null
    rm -rf /files/* /tmp/*
    echo "@test end $name $status $seconds"
done
