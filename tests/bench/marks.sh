# Answers the marks of a guest (marks.h), for scripts of Dom0.

# answer_marks GUEST DOMAIN...: prints `mark guest=GUEST name=… NAME=… …` at each mark of domain GUEST, with every DOMAIN's processor
# time in ns, until GUEST is gone. DOMAIN is a name, or 0.
answer_marks() {
    local guest=$1 node watch name domain line
    shift
    node=/local/domain/$(xl domid "$guest")/data
    declare -A numbers
    for domain; do
        numbers[$domain]=$domain
        [ "$domain" = 0 ] || numbers[$domain]=$(xl domid "$domain")
    done
    exec {watch}< <(exec xenstore-watch "$node/mark" @releaseDomain 2>/dev/null)
    local watcher=$!
    while read -r -u "$watch" line; do
        if [ "$line" = @releaseDomain ] && ! xl domid "$guest" >/dev/null 2>&1; then
            break
        fi
        [ "$line" = "$node/mark" ] && name=$(xenstore-read "$node/mark" 2>/dev/null) || continue
        line="mark guest=$guest name=${name// /.}"
        for domain; do
            line+=" dom-$domain=$(xen-facts domain "${numbers[$domain]}" | sed 's/.*cpu_ns=//')"
        done
        echo "$line"
        xenstore-write "$node/go" "$name"
    done
    kill "$watcher" 2>/dev/null
    exec {watch}<&-
}
