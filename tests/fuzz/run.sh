#!/usr/bin/env bash
# Runs every fuzz target for a while, from the corpus beside it.
#
#   tests/fuzz/run.sh [SECONDS]     each; default 120
#
# libFuzzer needs no nightly compiler: coverage is a stable code generation flag.
set -euo pipefail
cd "$(dirname "$0")"
seconds=${1:-120}
target=$(rustc -vV | sed -n 's/^host: //p')
export CARGO_TARGET_DIR=${FUZZ_TARGET_DIR:-$PWD/../../target/fuzz}
export RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1 -Cdebug-assertions"
cargo build --release --target "$target"
for name in frames messages harness archives; do
  echo "== $name: $seconds s"
  # New finds go to a scratch directory; the corpus here stays small.
  found=$(mktemp -d)
  "$CARGO_TARGET_DIR/$target/release/$name" -max_total_time="$seconds" -timeout=10 \
    -max_len=65536 -print_final_stats=1 "$found" "corpus/$name"
  rm -rf "$found"
done
