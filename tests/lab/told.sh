#!/bin/sh
# What DHCP clients of the lab run at each event: configures the interface, and
# writes all that the client was told to the file $LEASE at once.
case "$1$reason" in
deconfig | leasefail | nak | PREINIT6) exit 0 ;;
esac
if [ -n "$ip" ]; then
    ip addr replace "$ip/$mask" dev "$interface"
elif [ -n "$new_ip6_address" ]; then
    ip addr replace "$new_ip6_address/128" dev "$interface" nodad
fi
env >"$LEASE.new"
mv "$LEASE.new" "$LEASE"
