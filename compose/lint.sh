#!/usr/bin/env bash
# `make lint`: format, lints with warnings denied, and what may be depended on.
set -euo pipefail
# shellcheck source=compose/lib.sh
. "$(dirname "$0")/lib.sh"

# The version that deny.toml is written for.
DENY_VERSION=0.20.2

cd "$REPOSITORY"
cargo fmt --version >/dev/null 2>&1 || die "rustfmt is missing; run: rustup component add rustfmt"
cargo clippy --version >/dev/null 2>&1 || die "clippy is missing; run: rustup component add clippy"
say "format"
cargo fmt --all -- --check
say "lints"
cargo clippy --locked --workspace --all-targets -- -D warnings
# In CI the tool is built where it is missing; a person is told how to get it.
PATH=$REPOSITORY/target/tools/bin:$PATH
if [ -n "${CI:-}" ] && ! cargo deny --version >/dev/null 2>&1; then
  say "building cargo-deny $DENY_VERSION"
  cargo install --quiet cargo-deny --version "$DENY_VERSION" --locked --root target/tools || true
fi
if cargo deny --version >/dev/null 2>&1; then
  say "dependencies"
  cargo deny --offline check bans licenses sources
  say "NOT CHECKED: advisories, whose database comes from outside; where it can be fetched: cargo deny check advisories"
else
  say "NOT CHECKED: licences, bans, sources and advisories of dependencies; they are after: cargo install cargo-deny --locked"
fi
