#!/usr/bin/env bash
# Installs what `make bench` compares us with, beside what tests/deps.sh installs:
# DPDK's testpmd, and Open vSwitch with DPDK (Debian packages). And unpacks, without
# installing it, what the Linux guest is made of: Debian's cloud kernel, some of its
# modules, and a static busybox, into target/guest.
set -euo pipefail
cd "$(dirname "$0")/../.."

# testpmd is in dpdk-dev; the virtio driver is a plug-in of its own.
packages=(dpdk-dev librte-net-virtio23 openvswitch-switch-dpdk)

# Where the guest's parts go.
guest=${CARGO_TARGET_DIR:-target}/guest

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

# The package of the newest cloud kernel: what the metapackage depends on.
cloud_kernel() {
    apt-cache depends linux-image-cloud-amd64 | sed -n 's/^ *Depends: //p' | head -n1
}

unpack_guest() {
    [ -e "$guest/version" ] && return
    local parts kernel
    kernel=$(cloud_kernel)
    if [ -z "$kernel" ]; then
        as_root apt-get -qq update
        kernel=$(cloud_kernel)
    fi
    echo "deps: unpacking $kernel and busybox-static into $guest"
    rm -rf "$guest"
    mkdir -p "$guest/modules" "$guest/unpacked"
    parts=$(realpath "$guest/unpacked")
    # As whoever runs this: apt's own user could not write here.
    (cd "$parts" && apt-get -qq -o APT::Sandbox::User=root download "$kernel" busybox-static)
    for package in "$parts"/*.deb; do
        dpkg-deb -x "$package" "$parts"
    done
    cp "$parts"/boot/vmlinuz-* "$guest/vmlinuz"
    cp "$parts/bin/busybox" "$guest/busybox"
    find "$parts/lib/modules" -name '*.ko' -exec cp -t "$guest/modules" {} +
    dpkg-deb -f "$parts/$kernel"_*.deb Package Version | sed 's/^[^:]*: //' | paste -sd' ' >"$guest/version"
    rm -rf "$parts"
}

install_packages
unpack_guest
