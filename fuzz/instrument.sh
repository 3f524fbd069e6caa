#!/bin/sh
# rustc for our own crates, with what tells libFuzzer which ways their code takes (RUSTC_WORKSPACE_WRAPPER).
exec "$@" -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares
