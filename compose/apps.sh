#!/usr/bin/env bash
# Bundles apps of tests/apps (TypeScript) into target/apps/NAME.mjs with esbuild.
# Does nothing when the bundles are newer than all sources.
#
#   compose/apps.sh [NAME…]    these, or every directory with a main.ts
set -euo pipefail
# shellcheck source=compose/lib.sh
. "$(dirname "$0")/lib.sh"

SOURCE=$REPOSITORY/tests/apps
OUTPUT=$REPOSITORY/target/apps
# The one place that says how apps are bundled.
OPTIONS=$REPOSITORY/src/cli/app/bundler/options.mjs

main() {
  [ -f "$SOURCE/package.json" ] || die "tests/apps is missing from this checkout"
  local names=("$@") name main
  if [ ${#names[@]} -eq 0 ]; then
    for main in "$SOURCE"/*/main.ts; do names+=("$(basename "$(dirname "$main")")"); done
  fi
  local stale=
  for name in "${names[@]}"; do
    [ -f "$SOURCE/$name/main.ts" ] || die "there is no app tests/apps/$name"
    is_fresh "$OUTPUT/$name.mjs" || stale=yes
  done
  [ -n "$stale" ] || exit 0
  # Beside the target, so that the checkout stays as it was cloned.
  WORK=$OUTPUT/work
  mkdir -p "$WORK"
  find "$WORK" -mindepth 1 -maxdepth 1 -not -name node_modules -not -name installed -exec rm -rf {} +
  tar -C "$SOURCE" --exclude=./node_modules -c . | tar -C "$WORK" -x
  cp "$OPTIONS" "$WORK/"
  cd "$WORK"
  install_packages
  say "bundling ${names[*]}"
  rm -rf bundles
  npm run --silent build -- --outdir=bundles "${names[@]}" >&2 || die "the bundler failed"
  for name in "${names[@]}"; do mv "bundles/$name.mjs" "$OUTPUT/$name.mjs"; done
}

# Whether a bundle is newer than everything it may have been made of.
is_fresh() {
  [ -f "$1" ] && [ -z "$(find "$SOURCE" "$OPTIONS" "$0" -newer "$1" -not -path '*/node_modules*' -print -quit)" ]
}

# What is installed stays as long as what was asked for is the same.
install_packages() {
  local wanted how=install
  wanted=$(cat package*.json | sha256sum)
  [ "$(cat installed 2>/dev/null)" != "$wanted" ] || return 0
  say "installing the bundler and what the apps need"
  [ ! -f package-lock.json ] || how=ci
  # The bundler's binary is a package of its own; its install script only speeds it up.
  npm "$how" --loglevel=error --no-audit --no-fund --ignore-scripts >&2 || die "npm $how failed"
  printf '%s\n' "$wanted" >installed
}

main "$@"
