#!/usr/bin/env bash
# `make demo`: everything it needs, then `sluice demo` with the arguments given.
#
# A release build is what a user runs; a development build that is there
# already serves as well, and spares minutes of compiling.
set -euo pipefail
# shellcheck source=compose/lib.sh
. "$(dirname "$0")/lib.sh"

here=$REPOSITORY/compose
"$here/provision.sh"
"$here/image.sh"
"$here/apps.sh" sample postgresql
cd "$REPOSITORY"
profile=release
if [ ! -x target/release/sluice ] && [ -x target/debug/sluice ]; then
  say "using the development build; after 'make build' the demo takes the faster one"
  profile=debug
  # With a test beside it, because dependencies are compiled for tests there.
  cargo build --locked --workspace --bin sluice --test tidy >&2
else
  cargo build --locked --release >&2
fi
"$here/run.sh" demo "target/$profile/sluice" "$@"
