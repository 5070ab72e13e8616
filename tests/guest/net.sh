# Functions for jobs of guests with NICs: `. /net.sh`.

# net_up dhcp|ADDRESS/BITS [DEVICE]: brings DEVICE up, eth0 if none is named, and gives it the address.
net_up() {
    local device=${2:-eth0}
    ip link set lo up
    ip link set "$device" up || return
    case $1 in
    dhcp) udhcpc -i "$device" -n -q -t 8 -T 2 ;;
    *) ip address add "$1" dev "$device" ;;
    esac
}

# net_mac [DEVICE]: its MAC address.
net_mac() {
    cat "/sys/class/net/${1:-eth0}/address"
}

# net_address [DEVICE]: its IPv4 address.
net_address() {
    ip -4 -o address show dev "${1:-eth0}" | sed 's|.* inet \([0-9.]*\)/.*|\1|'
}

# net_reach ADDRESS [SECONDS]: waits until ADDRESS answers a ping.
net_reach() {
    local start=$SECONDS
    until ping -c 1 -W 1 "$1" >/dev/null 2>&1; do
        [ $((SECONDS - start)) -lt "${2:-30}" ] || return 1
    done
}

# offloads on|off [DEVICE]: of all kinds that a NIC of virtio has, both ways.
offloads() {
    local kind
    for kind in gro gso tso tx rx; do
        # One that is fixed is no fault.
        ethtool -K "${2:-eth0}" "$kind" "$1" 2>/dev/null || true
    done
}

# net_put FILE ADDRESS PORT: uploads FILE by HTTP, and prints what the server says of it: its SHA-256.
net_put() {
    local connection line
    exec {connection}<>"/dev/tcp/$2/$3" || return
    printf 'PUT / HTTP/1.0\r\nContent-Length: %d\r\n\r\n' "$(stat -c %s "$1")" >&"$connection"
    cat "$1" >&"$connection" || return
    while read -r -u "$connection" line && [ "$line" != $'\r' ]; do :; done
    cat <&"$connection"
    exec {connection}>&-
}

# net_meet NAME ADDRESS...: waits until all of the guests with these addresses have come as far as we: each runs busybox' httpd over /tmp/www.
net_meet() {
    local address
    touch "/tmp/www/$1"
    for address in "${@:2}"; do
        until wget -q -T 5 -O /dev/null "http://$address/$1" 2>/dev/null; do
            sleep 0.2
        done
    done
}
