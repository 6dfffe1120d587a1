#!/bin/sh
# Runs libvirtd(8) as that of one host among several on this machine: with what it keeps,
# its run-time files and its host name for itself. Call by `unshare --mount --uts`, with
# the host's name, its UUID, a directory for all that, and Open vSwitch's directory.
set -e
name=$1 uuid=$2 dir=$3 ovs=$4

hostname "$name"
mkdir -p "$dir/etc" "$dir/lib" "$dir/log" "$dir/cache" "$dir/run/libvirt" \
    "$dir/run/openvswitch" "$dir/run/sluice-lab"

# The lab's own directory is below /run and has to stay where it is.
mount --rbind /run/sluice-lab "$dir/run/sluice-lab"
mount --bind "$ovs" "$dir/run/openvswitch"
mount --rbind "$dir/run" /run
mount --bind "$dir/etc" /etc/libvirt
for own in lib log cache; do
    # Only the package of its service makes the directory; without it, nobody else's is
    # beside it that would be needed here.
    [ -d "/var/$own/libvirt" ] || {
        mount -t tmpfs tmpfs "/var/$own"
        mkdir "/var/$own/libvirt"
    }
    mount --bind "$dir/$own" "/var/$own/libvirt"
done

# It insists on a user that the package of its service would make, though nothing is run
# as that one here.
cp /etc/passwd /etc/group "$dir"
grep -q ^libvirt-qemu: "$dir/passwd" ||
    echo "libvirt-qemu:x:64055:64055::/:/bin/false" >>"$dir/passwd"
grep -q ^libvirt-qemu: "$dir/group" || echo "libvirt-qemu:x:64055:" >>"$dir/group"
mount --bind "$dir/passwd" /etc/passwd
mount --bind "$dir/group" /etc/group

cat >"$dir/etc/libvirtd.conf" <<EOF
host_uuid = "$uuid"
auth_unix_ro = "none"
auth_unix_rw = "none"
unix_sock_group = "root"
log_outputs = "3:stderr"
EOF
# No confinement, no control groups: the sandbox is all that.
cat >"$dir/etc/qemu.conf" <<EOF
security_driver = "none"
user = "root"
group = "root"
dynamic_ownership = 0
namespaces = []
cgroup_controllers = []
stdio_handler = "file"
EOF
while :; do
    libvirtd || true
    while [ -e "$dir/down" ]; do sleep 0.1; done
done
