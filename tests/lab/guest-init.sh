#!/bin/busybox sh
# The first and only program of a lab's Linux guest: has every NIC that comes, with the
# guest or later, configured by DHCP, and runs its task, if it has one.
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
while read -r module; do
    insmod "/modules/$module.ko"
done </modules/order
echo 1 >/proc/sys/net/ipv6/conf/default/disable_ipv6
ip link set lo up
echo ready
[ ! -e /task ] || sh /task &

while :; do
    for path in /sys/class/net/eth*; do
        nic=${path##*/}
        [ -e "$path" ] && [ ! -e "/seen/$nic" ] || continue
        touch "/seen/$nic"
        ip link set "$nic" up
        udhcpc -i "$nic" -f -t 60 -T 1 -A 1 -s /bin/leased >/dev/null 2>&1 &
    done
    for path in /seen/*; do
        [ -e "/sys/class/net/${path##*/}" ] || rm -f "$path"
    done
    sleep 0.2
done
