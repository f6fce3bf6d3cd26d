#!/usr/bin/env bash
# `make bench`: everything it needs, then `sluice bench`, always of a release build.
set -euo pipefail
# shellcheck source=compose/lib.sh
. "$(dirname "$0")/lib.sh"

"$REPOSITORY/compose/provision.sh"
"$REPOSITORY/compose/image.sh"
cd "$REPOSITORY"
cargo build --locked --release >&2
"$REPOSITORY/compose/run.sh" bench target/release/sluice "$@"
