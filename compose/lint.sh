#!/usr/bin/env bash
# `make lint`: format, lints with warnings denied, and what may be depended on.
set -euo pipefail
# shellcheck source=compose/lib.sh
. "$(dirname "$0")/lib.sh"

cd "$REPOSITORY"
cargo fmt --version >/dev/null 2>&1 || die "rustfmt is missing; run: rustup component add rustfmt"
cargo clippy --version >/dev/null 2>&1 || die "clippy is missing; run: rustup component add clippy"
say "format"
cargo fmt --all -- --check
say "lints"
cargo clippy --locked --workspace --all-targets -- -D warnings
if cargo deny --version >/dev/null 2>&1; then
  say "dependencies"
  cargo deny --offline check bans licenses sources
  say "NOT CHECKED: advisories, whose database is fetched from outside; where it can be: cargo deny check advisories"
else
  say "NOT CHECKED: licences, bans, sources and advisories of dependencies; after 'cargo install cargo-deny --locked' they are"
fi
