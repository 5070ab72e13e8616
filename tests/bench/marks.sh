# Marks, for scripts of Dom0: every domain's processor time at a moment. A DOMAIN is a name, or 0.

# number_domains DOMAIN...: the domains that marks are about.
number_domains() {
    local domain
    declare -gA numbers=()
    for domain; do
        numbers[$domain]=$domain
        [ "$domain" = 0 ] || numbers[$domain]=$(xl domid "$domain")
    done
}

# mark GUEST NAME: prints `mark guest=GUEST name=NAME dom-DOMAIN=… …` with the processor times in ns.
mark() {
    local line="mark guest=$1 name=$2" domain
    for domain in "${!numbers[@]}"; do
        line+=" dom-$domain=$(xen-facts domain "${numbers[$domain]}" | sed 's/.*cpu_ns=//')"
    done
    echo "$line"
}

# counters GUEST NAME: prints `counters guest=GUEST name=NAME KEY=NUMBER …`: what the driver domain has counted since it began.
counters() {
    local log=$CONSOLES/guest-driver-domain.log before
    before=$(($(wc -c <"$log") + 1))
    xl sysrq driver-domain w
    # With the end of the line.
    until [[ $(tail -c "+$before" "$log") =~ "work: "([^$'\r']*)$'\r' ]]; do
        sleep 0.05
    done
    echo "counters guest=$1 name=$2 ${BASH_REMATCH[1]}"
}

# mark_and_count GUEST NAME: a mark, and what the driver domain has counted, unless COUNTING is empty: the question is outside of what is
# between two marks.
mark_and_count() {
    [[ -z $COUNTING || $2 == *.end ]] || counters "$@"
    mark "$@"
    [[ -z $COUNTING || $2 != *.end ]] || counters "$@"
}

# answer_marks GUEST DOMAIN...: prints a mark of every DOMAIN each time that domain GUEST asks for one (marks.h), until GUEST is gone.
answer_marks() {
    local guest=$1 node watch name line
    shift
    node=/local/domain/$(xl domid "$guest")/data
    number_domains "$@"
    exec {watch}< <(exec xenstore-watch "$node/mark" @releaseDomain 2>/dev/null)
    local watcher=$!
    while read -r -u "$watch" line; do
        if [ "$line" = @releaseDomain ] && ! xl domid "$guest" >/dev/null 2>&1; then
            break
        fi
        [ "$line" = "$node/mark" ] && name=$(xenstore-read "$node/mark" 2>/dev/null) || continue
        mark_and_count "$guest" "${name// /.}"
        xenstore-write "$node/go" "$name"
    done
    kill "$watcher" 2>/dev/null
    exec {watch}<&-
}

# answer_marks_together NAME BACKEND GUEST...: as answer_marks, but a mark named NAME is printed, and all are answered, when all GUESTs have
# asked for it; until the mark `pass end`, which nobody is answered.
answer_marks_together() {
    local name=$1 backend=$2 watch line wanted guest
    shift 2
    local -A marks=()
    for guest; do
        marks[$guest]=/local/domain/$(xl domid "$guest")/data
    done
    number_domains "$backend" "$@"
    exec {watch}< <(exec xenstore-watch "${marks[@]/%//mark}" @releaseDomain 2>/dev/null)
    local watcher=$!
    while read -r -u "$watch" line; do
        [ "$line" != @releaseDomain ] || xl domid "$1" >/dev/null 2>&1 || fail "guest $1 is gone too early"
        wanted=$(asked_by_all "${marks[@]}") || continue
        [ "$wanted" != "pass end" ] || break
        mark_and_count "$name" "${wanted// /.}"
        for guest; do
            xenstore-write "${marks[$guest]}/go" "$wanted"
        done
    done
    kill "$watcher" 2>/dev/null
    exec {watch}<&-
}

# asked_by_all DATA...: the mark that all these domains ask for, who have not been answered yet; else it is false.
asked_by_all() {
    local data mark all=
    for data; do
        mark=$(xenstore-read "$data/mark" 2>/dev/null) || return
        [ "$mark" != "$(xenstore-read "$data/go" 2>/dev/null)" ] || return
        [ -z "$all" ] || [ "$mark" = "$all" ] || return
        all=$mark
    done
    echo "$all"
}

# go_on GUEST...: answers `pass end`.
go_on() {
    local guest
    for guest; do
        xenstore-write "/local/domain/$(xl domid "$guest")/data/go" "pass end"
    done
}
