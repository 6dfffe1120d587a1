#!/usr/bin/env bash
# Unpacks, without installing it, what a Linux guest is made of, into target/guest:
# Debian's cloud kernel, its modules, and a static busybox. Quick when it is there.
set -euo pipefail
cd "$(dirname "$0")/.."

guest=${CARGO_TARGET_DIR:-target}/guest

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
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
    echo "guest: unpacking $kernel and busybox-static into $guest"
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

unpack_guest
