#!/usr/bin/env bash
# Prints how many lines of the datapath its tests run, file by file. Installs what
# that takes: cargo-llvm-cov, and LLVM's tools of the compiler's version.
set -euo pipefail
cd "$(dirname "$0")/.."

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

llvm=llvm-$(rustc -vV | sed -n 's/^LLVM version: \([0-9]*\).*/\1/p')
if [ ! -x "/usr/lib/$llvm/bin/llvm-cov" ]; then
    as_root apt-get -qq update
    as_root apt-get -qq -y install --no-install-recommends "$llvm" >/dev/null
fi
command -v cargo-llvm-cov >/dev/null || cargo install --quiet --locked cargo-llvm-cov

export LLVM_COV="/usr/lib/$llvm/bin/llvm-cov" LLVM_PROFDATA="/usr/lib/$llvm/bin/llvm-profdata"
# Tests are not what is measured.
cargo llvm-cov -p nve-datapath --summary-only --ignore-filename-regex 'tests?(/|\.rs)|/reference\.rs|/protocol/'
