#!/usr/bin/env bash
# Installs what building and testing need and this machine lacks: Debian packages
# (by sudo when not root), Rust, and the Python packages of the tests in .venv.
# Quick when nothing is missing.
set -euo pipefail
cd "$(dirname "$0")/.."

# By purpose: compile; boot and switch; manage guests; decode and probe; guests'
# clients; count instructions; Python.
packages=(
    build-essential ca-certificates curl git libvirt-dev pkg-config
    qemu-system-x86 openvswitch-switch iproute2 ethtool
    libvirt-daemon libvirt-daemon-driver-qemu libvirt-clients
    tcpdump tshark iputils-ping iputils-arping iputils-tracepath iperf3 nmap
    busybox isc-dhcp-client ndisc6
    valgrind
    python3 python3-venv
)

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

say() {
    echo "deps: $*"
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
    say "installing ${missing[*]}"
    as_root apt-get -qq update
    as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get -qq -y install --no-install-recommends "${missing[@]}" >/dev/null
    # The lab runs a vSwitch of its own; the host's was not asked for.
    if [[ " ${missing[*]} " == *" openvswitch-switch "* && -d /run/systemd/system ]]; then
        as_root systemctl --quiet disable --now openvswitch-switch || true
    fi
}

# Whether cargo and its components are there, at least as new as the workspace asks.
rust_is_recent() {
    local have want
    command -v cargo >/dev/null || return 1
    want=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
    have=$(cargo --version 2>/dev/null | cut -d' ' -f2)
    [ "$(printf '%s\n' "$want" "$have" | sort -V | head -n1)" = "$want" ] &&
        cargo fmt --version >/dev/null 2>&1 && cargo clippy --version >/dev/null 2>&1
}

install_rust() {
    rust_is_recent && return
    if ! command -v rustup >/dev/null; then
        say "installing Rust for $(id -un) by its official installer"
        curl --proto '=https' --tlsv1.2 -fsSL https://static.rust-lang.org/rustup/rustup-init.sh |
            sh -s -- -y --quiet --default-toolchain none
    fi
    # The version and the components that rust-toolchain.toml names.
    say "installing the toolchain of this project"
    rustup toolchain install
    rust_is_recent || { say "cargo is still too old: $(command -v cargo)"; exit 1; }
}

install_python_packages() {
    local wanted=tests/openstack/requirements.txt stamp=.venv/installed.txt
    cmp -s "$wanted" "$stamp" && return
    say "installing the tests' Python packages into .venv"
    /usr/bin/python3 -m venv --clear .venv
    .venv/bin/pip install --quiet --disable-pip-version-check -r "$wanted"
    cp "$wanted" "$stamp"
}

install_packages
export PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH"
install_rust
install_python_packages
