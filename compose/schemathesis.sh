#!/usr/bin/env bash
# Installs schemathesis, which holds the gateway's answers against its OpenAPI
# document, into target/schemathesis. Does nothing when it is there.
set -euo pipefail
# shellcheck source=compose/lib.sh
. "$(dirname "$0")/lib.sh"

VERSION=4.32.5
HOME_DIR=$REPOSITORY/target/schemathesis

[ "$(cat "$HOME_DIR/installed" 2>/dev/null)" != "$VERSION" ] || exit 0
say "installing schemathesis $VERSION"
rm -rf "$HOME_DIR"
# The system's Python: another user runs what is installed here.
PATH=$TARGET_PATH python3 -m venv "$HOME_DIR" || die "python3 -m venv failed: see above"
"$HOME_DIR/bin/python" -m pip install --quiet --disable-pip-version-check "schemathesis==$VERSION" >&2 ||
  die "pip could not install schemathesis: see above"
printf '%s\n' "$VERSION" >"$HOME_DIR/installed"
