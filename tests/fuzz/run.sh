#!/usr/bin/env bash
# Feeds each fuzz target for FUZZ_SECONDS, beginning with the corpus that is checked
# in: seeds by name in a directory, and what earlier runs found, minimised, in an
# archive. What is found new stays in target/, what crashes in artifacts/.
set -euo pipefail
cd "$(dirname "$0")/../.."

for target in frames messages configuration rest; do
    found=tests/fuzz/target/corpus/$target
    mkdir -p "$found"
    tar -xzf "tests/fuzz/corpus/$target.tar.gz" -C "$found"
    words=()
    [ ! -e "tests/fuzz/$target.dict" ] || words=("-dict=tests/fuzz/$target.dict")
    # No unsafe code here that a sanitizer would watch.
    cargo +nightly fuzz run --fuzz-dir tests/fuzz --sanitizer none "$target" \
        "$found" "tests/fuzz/corpus/$target" -- \
        -max_total_time="${FUZZ_SECONDS:-60}" -max_len=4096 "${words[@]}"
done
