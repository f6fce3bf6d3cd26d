#!/usr/bin/env bash
# Runs the built program as the unprivileged user, from a scratch directory
# that this user can read, wherever the checkout lies.
#
#   compose/run.sh demo|bench PROGRAM [ARGUMENT…]
#
# Standard output is the program's alone.
set -euo pipefail
# shellcheck source=compose/lib.sh
. "$(dirname "$0")/lib.sh"

command=$1
program=$2
shift 2
make_scratch
install -m 0755 "$program" "$SCRATCH/sluice"
arguments=("$command")
if [ "$command" = demo ]; then
  install -m 0644 "$REPOSITORY/target/apps/sample.mjs" "$SCRATCH/sample.mjs"
  arguments+=(--app "$SCRATCH/sample.mjs")
  # A database on the loopback, in a network where apps may reach it; where this
  # user may make no such network, the demo says that it has none.
  if "${SUDO[@]}" "$REPOSITORY/compose/alone.sh" true 2>/dev/null; then
    ALONE=yes
    install -m 0644 "$REPOSITORY/target/apps/postgresql.mjs" "$SCRATCH/postgresql.mjs"
    arguments+=(--postgresql "$MIRROR" --postgresql-app "$SCRATCH/postgresql.mjs")
  fi
fi
cd "$SCRATCH"
as_user TMPDIR="$SCRATCH/t" "$SCRATCH/sluice" "${arguments[@]}" "$@"
