#!/usr/bin/env bash
# Bundles the sample app, tests/apps/sample (TypeScript), into
# target/apps/sample.mjs with esbuild. Does nothing when the bundle is newer
# than its sources.
set -euo pipefail
# shellcheck source=compose/lib.sh
. "$(dirname "$0")/lib.sh"

SOURCE=$REPOSITORY/tests/apps/sample
OUTPUT=$REPOSITORY/target/apps
BUNDLE=$OUTPUT/sample.mjs

[ -f "$SOURCE/package.json" ] || die "tests/apps/sample is missing from this checkout"
if [ -f "$BUNDLE" ] && [ -z "$(find "$SOURCE" "$0" -newer "$BUNDLE" -not -path '*/node_modules*' -print -quit)" ]; then
  exit 0
fi

# Beside the target, so that the checkout stays as it was cloned.
work=$OUTPUT/sample
mkdir -p "$work"
# What is installed stays as long as what was asked for is the same.
installed=$(cat "$work/installed" 2>/dev/null || true)
wanted=$(cat "$SOURCE"/package*.json | sha256sum)
find "$work" -mindepth 1 -maxdepth 1 -not -name node_modules -not -name installed -exec rm -rf {} +
tar -C "$SOURCE" --exclude=./node_modules -c . | tar -C "$work" -x
cd "$work"
if [ "$installed" != "$wanted" ]; then
  say "installing the bundler"
  how=install
  [ ! -f package-lock.json ] || how=ci
  # The bundler's binary is a package of its own; its install script only speeds it up.
  npm "$how" --loglevel=error --no-audit --no-fund --ignore-scripts >&2 || die "npm $how failed"
  printf '%s\n' "$wanted" >installed
fi
say "bundling the sample app"
npm run --silent build -- --outfile="$BUNDLE.new" >&2 || die "the bundler failed"
mv "$BUNDLE.new" "$BUNDLE"
