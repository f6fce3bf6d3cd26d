#!/usr/bin/env bash
# Builds the runtime image in the unprivileged user's Podman store, wherever
# the checkout lies and whoever calls. Does nothing when FLOWS_RUNTIME_IMAGE
# names another image.
set -euo pipefail
# shellcheck source=compose/lib.sh
. "$(dirname "$0")/lib.sh"

if [ -n "${FLOWS_RUNTIME_IMAGE:-}" ]; then
  say "FLOWS_RUNTIME_IMAGE is $FLOWS_RUNTIME_IMAGE: nothing to build"
  exit 0
fi
make_scratch
mkdir "$SCRATCH/compose"
cp "$REPOSITORY"/compose/{lib,node,runtime-image}.sh "$SCRATCH/compose/"
# Debian's package lists may be missing on a machine that needed no package.
if ! compgen -G '/var/lib/apt/lists/*Packages*' >/dev/null && command -v apt-get >/dev/null; then
  "${SUDO[@]}" apt-get update -q >&2
fi
cd "$SCRATCH"
mend_podman
as_user TMPDIR="$SCRATCH/t" bash "$SCRATCH/compose/runtime-image.sh"
