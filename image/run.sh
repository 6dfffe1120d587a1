#!/bin/sh
# Boots the appliance in QEMU: the reference run profile.
#
#   image/run.sh CONFIG [TRUNK UPLINK]
#
# CONFIG is the JSON configuration, TRUNK and UPLINK are network back ends as
# QEMU's -netdev takes them, without id; left out, the NICs lead nowhere:
#
#   image/run.sh image/example.json tap,ifname=trunk0,script=no,downscript=no \
#                                   tap,ifname=uplink0,script=no,downscript=no
#
# MAC addresses are those of example.json, or TRUNK_MAC and UPLINK_MAC.
# Exit statuses: image/README.md.
#
# There could be a second processor, but is not: with one at most, QEMU 7.2 translates
# no memory barriers, though its devices run in another thread, and loses notifications.
set -eu
here=$(dirname "$0")
config=$1
trunk=${2:-hubport,hubid=1}
uplink=${3:-hubport,hubid=2}

exec qemu-system-x86_64 \
    -machine "${MACHINE:-q35}" -cpu "${CPU:-max}" -smp 1,maxcpus=2 -m "${MEMORY:-64M}" \
    -nodefaults -no-user-config -no-reboot -display none -serial stdio \
    -device isa-debug-exit,iobase=0xf4,iosize=0x04 \
    -kernel "${IMAGE:-$here/../target/image/nve.elf}" -initrd "$config" \
    -netdev "$trunk,id=trunk" \
    -device "virtio-net-pci,netdev=trunk,mac=${TRUNK_MAC:-52:54:00:00:01:01},host_mtu=1500,disable-legacy=on,romfile=" \
    -netdev "$uplink,id=uplink" \
    -device "virtio-net-pci,netdev=uplink,mac=${UPLINK_MAC:-52:54:00:00:01:02},host_mtu=1600,disable-legacy=on,romfile="
