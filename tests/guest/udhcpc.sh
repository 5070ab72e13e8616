#!/bin/busybox sh
# What busybox' DHCP client calls when it has been given an address, or has lost it.
case $1 in
deconfig)
    ip address flush dev "$interface"
    ip link set "$interface" up
    ;;
bound | renew)
    ip address replace "$ip/$mask" dev "$interface"
    [ -z "$router" ] || ip route replace default via "${router%% *}" dev "$interface"
    echo "guest: $interface has $ip/$mask by DHCP"
    ;;
esac
