#!/usr/bin/env bash
# Runs every test and ends with the names of those that failed, and a line that counts.
set -uo pipefail
cd "$(dirname "$0")/.."

passed=0
failed=0
log=$(mktemp)
failures=$(mktemp)
trap 'rm -f "$log" "$failures"' EXIT

# Runs a command and adds the counts of the tests it reports ("2 passed", "1
# failed"). One that reports none, or that fails without a failed test, counts
# as a test itself.
count() {
    local name=$1 status before=$failed
    shift
    printf '\n== %s\n' "$name"
    "$@" 2>&1 | tee "$log"
    status=${PIPESTATUS[0]}
    awk -v step="$name" '/^test .*FAILED/ && !/^test result/ && !seen[$0]++ {
        print step ": " $0 }' "$log" >>"$failures"
    passed=$((passed + $(sum passed)))
    failed=$((failed + $(sum failed)))
    if [ "$status" != 0 ] && [ "$failed" = "$before" ]; then
        echo "$name failed" | tee -a "$failures"
        failed=$((failed + 1))
    elif [ "$(sum passed)" = 0 ] && [ "$status" = 0 ]; then
        passed=$((passed + 1))
    fi
}

# Sum of the numbers before a word in the summaries of cargo test and the lab.
sum() {
    grep -E '^(test result: .*|[0-9]+ passed, [0-9]+ failed)' "$log" |
        grep -oE "[0-9]+ $1" | awk '{ n += $1 } END { print n + 0 }'
}

count "format and lints" make --no-print-directory check
count "tests without a lab" cargo test --no-fail-fast
count "build" make --no-print-directory build
count "image that fails on purpose" image/build.sh --features fault-injection
count "instructions per packet" make --no-print-directory gate
count "the image alone" cargo test -p nve-kernel --test image -- --ignored
count "end-to-end tests" make --no-print-directory lab-test

echo
cat "$failures"
printf '%s passed, %s failed\n' "$passed" "$failed"
[ "$failed" = 0 ]
