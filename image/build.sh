#!/bin/sh
# Builds the appliance's image: target/image/nve.elf, and nve.debug.elf with the
# symbols for the addresses of a panic report. Arguments go to cargo, e.g.
# `--features fault-injection` (written to nve-fault.elf).
set -eu
cd "$(dirname "$0")/.."

name=nve
case " $* " in *fault-injection*) name=nve-fault ;; esac

# --target keeps these flags away from build scripts and procedural macros.
RUSTFLAGS="-C relocation-model=static -C target-cpu=x86-64-v2 -C force-frame-pointers=yes" \
    cargo build --quiet -p nve-kernel --bin nve-kernel --profile image \
    --features image --target x86_64-unknown-linux-gnu "$@"

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
