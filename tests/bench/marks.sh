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
        mark "$guest" "${name// /.}"
        xenstore-write "$node/go" "$name"
    done
    kill "$watcher" 2>/dev/null
    exec {watch}<&-
}
