#!/usr/bin/env bash
# Runs fuzz targets for a while, with libFuzzer and the address sanitizer, from
# the corpora beside this file. A crash ends it; what crashed lies in artifacts/.
#
#   tests/fuzz/run.sh [SECONDS [TARGET…]]     each; default 180, all
set -euo pipefail
cd "$(dirname "$0")"
seconds=${1:-180}
targets=("${@:2}")
[ ${#targets[@]} -gt 0 ] || targets=(frames messages harness archives)
export CARGO_TARGET_DIR=${FUZZ_TARGET_DIR:-$PWD/../../target/fuzz}
# The installed toolchain, whatever its channel, takes the flags of sanitizers.
export RUSTC_BOOTSTRAP=1
PATH=$CARGO_TARGET_DIR/tools/bin:$PATH
command -v cargo-fuzz >/dev/null || cargo install --locked --root "$CARGO_TARGET_DIR/tools" cargo-fuzz
for name in "${targets[@]}"; do
  echo "== $name: $seconds s"
  # New finds go to a scratch directory; the corpus here stays small.
  found=$(mktemp -d)
  cargo fuzz run --fuzz-dir . "$name" "$found" "corpus/$name" -- \
    -max_total_time="$seconds" -timeout=10 -max_len=65536 -print_final_stats=1
  rm -rf "$found"
done
