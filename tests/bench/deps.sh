#!/usr/bin/env bash
# Installs what `make bench` compares us with, beside what tests/deps.sh installs:
# DPDK's testpmd, and Open vSwitch with DPDK (Debian packages). And what the Linux guest
# is made of.
set -euo pipefail
cd "$(dirname "$0")/../.."

# testpmd is in dpdk-dev; the virtio driver is a plug-in of its own.
packages=(dpdk-dev librte-net-virtio23 openvswitch-switch-dpdk)

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

is_installed() {
    [ "$(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

install_packages() {
    local package missing=()
    for package in "${packages[@]}"; do
        is_installed "$package" || missing+=("$package")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    echo "deps: installing ${missing[*]}"
    as_root apt-get -qq update
    as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get -qq -y install --no-install-recommends "${missing[@]}" >/dev/null
}

install_packages
tests/guest.sh
