#!/usr/bin/env bash
# Runs the scenarios that a filter names, or all, RUNS times beside LOOPS busy loops, one after the other, and says which failed
# in how many of the runs.
set -euo pipefail

mkdir -p "$OUT" && rm -f "$OUT"/*
loops=()
trap 'kill "${loops[@]}" 2>/dev/null || true' EXIT
for _ in $(seq "$LOOPS"); do
    (while :; do :; done) &
    loops+=($!)
done

for run in $(seq "$RUNS"); do
    # A run that fails is told at the end.
    "$CARGO" test --workspace --features fuzz/libfuzzer --locked --test scenarios -- "$@" >"$OUT/$run" 2>&1 || true
    echo "run $run of $RUNS: $(grep '^test result' "$OUT/$run" || echo 'no result; see' "$OUT/$run")"
done

failed=$(sed -n 's/^test \(.*\) \.\.\. FAILED.*/\1/p' "$OUT"/* | sort | uniq -c | sort -rn)
if [ -n "$failed" ]; then
    printf 'failed, how often:\n%s\n' "$failed"
fi
test "$(grep -l '^test result: ok' "$OUT"/* | wc -l)" = "$RUNS"
