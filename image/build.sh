#!/bin/sh
# Builds the appliance's image: target/image/nve.elf, and nve.debug.elf with the
# symbols for the addresses of a panic report.
#
#   image/build.sh                            the image
#   image/build.sh --features fault-injection nve-fault.elf, for tests of reports
#   image/build.sh clippy                     lints of the bare-metal code
set -eu
cd "$(dirname "$0")/.."

export RUSTFLAGS="-C relocation-model=static -C target-cpu=x86-64-v2 -C force-frame-pointers=yes"
# --target keeps these flags away from build scripts and procedural macros.
common="-p nve-kernel --bin nve-kernel --profile image --features image --target x86_64-unknown-linux-gnu"

if [ "${1:-}" = clippy ]; then
    exec cargo clippy --quiet $common -- -D warnings
fi

name=nve
case " $* " in *fault-injection*) name=nve-fault ;; esac
cargo build --quiet $common "$@"

target=${CARGO_TARGET_DIR:-target}
built=$target/x86_64-unknown-linux-gnu/image/nve-kernel
mkdir -p "$target/image"

# The C library is named by the target only; a symbol of it left open is a bug.
if [ -n "$(nm -u "$built")" ]; then
    echo "undefined symbols in the image:" >&2
    nm -u "$built" >&2
    exit 1
fi

cp "$built" "$target/image/$name.debug.elf"
objcopy --strip-all "$built" "$target/image/$name.elf"
stat -c '%n: %s bytes' "$target/image/$name.elf"
