#!/usr/bin/env bash
# `make test`: the whole check, as CI runs it. Ends with `N passed, M failed`.
#
# Builds as the caller and runs every test binary as the unprivileged user, from
# a copy of the checkout in a scratch directory that this user can read.
#
#   compose/test.sh [NAME…]    only these, without lints: node, sluice, line, tidy, …
set -euo pipefail
# shellcheck source=compose/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=compose/node.sh
. "$(dirname "$0")/node.sh"

# The slowest binary takes a tenth of it; what takes longer hangs.
BINARY_S_MAX=900
# These run in a network of their own, with so many tests at once: most of
# their time they wait for runtimes, timers and each other.
ALONE_BINARIES=' apps '
ALONE_THREADS=16

ALONE=
PASSED=0
FAILED=0

main() {
  "$REPOSITORY/compose/provision.sh"
  cd "$REPOSITORY"
  find_node
  "$REPOSITORY/compose/image.sh"
  "$REPOSITORY/compose/apps.sh"
  "$REPOSITORY/compose/schemathesis.sh"
  [ $# -ne 0 ] || "$REPOSITORY/compose/lint.sh"
  say "building the tests"
  make_scratch
  build_tests
  stage
  [ $# -ne 0 ] && [[ " $* " != *' node '* ]] || test_node
  local name kind package binary
  while IFS=$'\t' read -r name kind package binary; do
    [ $# -eq 0 ] || [[ " $* " == *" $name "* ]] || continue
    test_binary "$name" "$kind" "$package" "$binary"
  done <"$SCRATCH/binaries"
  printf '\n%s passed, %s failed\n' "$PASSED" "$FAILED"
  [ "$FAILED" -eq 0 ] && [ "$PASSED" -gt 0 ]
}

# The system's Node if it is recent enough, else the pinned one below target/.
find_node() {
  [ "$(node_major "$TARGET_PATH")" -lt $NODE_MAJOR_MIN ] || return 0
  [ -x target/node/node ] || fetch_node "$REPOSITORY/target/node/node"
  NODE_FETCHED=yes
}

# Leaves a table in $SCRATCH/binaries: name, kind, package directory, executable.
build_tests() {
  cargo test --locked --workspace --no-run --message-format=json-render-diagnostics >"$SCRATCH/messages"
  PATH=$TARGET_PATH:$PATH node -e '
    const lines = require("fs").readFileSync(process.argv[1], "utf8").split("\n").filter(Boolean);
    for (const message of lines.map((line) => JSON.parse(line))) {
      if (message.reason !== "compiler-artifact" || !message.executable || !message.profile.test) continue;
      const directory = require("path").relative(process.argv[2], require("path").dirname(message.manifest_path)) || ".";
      console.log([message.target.name, message.target.kind[0], directory, message.executable].join("\t"));
    }
  ' "$SCRATCH/messages" "$REPOSITORY" | sort >"$SCRATCH/binaries"
  [ -s "$SCRATCH/binaries" ] || die "cargo built no test"
}

# Everything git would keep, the program and the bundle, readable by the user.
stage() {
  STAGE=$SCRATCH/sluice
  mkdir -p "$STAGE/target/apps" "$STAGE/target/debug"
  if git -c safe.directory='*' rev-parse --git-dir >/dev/null 2>&1; then
    # A file that is deleted but not committed is listed all the same.
    git -c safe.directory='*' ls-files -z --cached --others --exclude-standard |
      tar --null --files-from=- --ignore-failed-read -c 2>/dev/null | tar -C "$STAGE" -x
  else
    tar --exclude=./target --exclude=node_modules -c . | tar -C "$STAGE" -x
  fi
  cp -R target/schemathesis "$STAGE/target/"
  cp target/apps/*.mjs "$STAGE/target/apps/"
  cp target/debug/sluice "$STAGE/target/debug/"
  [ -z "${NODE_FETCHED:-}" ] || install -D -m 0755 target/node/node "$SCRATCH/bin/node"
  TARGET_PATH=$SCRATCH/bin:$TARGET_PATH
  chmod -R go+rX "$STAGE"
  [ "$(id -u)" -ne 0 ] || chown -R "$TARGET_USER:" "$SCRATCH"
}

# Runs one thing as the user, limited in time; its output goes to the terminal
# and into $LOG, its exit code into $STATUS, what it left behind into $LEFT.
limited() {
  LOG=$SCRATCH/log
  # In the background, because a waiting shell hears a signal at once.
  {
    STATUS=0
    timeout --kill-after=20 "$BINARY_S_MAX" bash -c '
      . "$1/compose/lib.sh"; TARGET_PATH=$2; ALONE=$3; cd "$4"; shift 4; as_user "$@"
    ' "$0" "$REPOSITORY" "$TARGET_PATH" "$ALONE" "$@" </dev/null || STATUS=$?
    # Whatever still lives may hold the pipe open, so it ends before the pipe is waited for.
    await_strays
    end_strays >"$SCRATCH/left"
    echo "$STATUS" >"$SCRATCH/status"
  } 2>&1 | tee "$LOG" &
  wait $!
  STATUS=$(cat "$SCRATCH/status")
  LEFT=$(cat "$SCRATCH/left")
}

test_node() {
  local files
  files=$(cd "$STAGE" && find tests/node -name '*.test.*js' 2>/dev/null | sort)
  [ -n "$files" ] || die "tests/node holds no test"
  printf '\n     Running tests/node (Node.js)\n'
  # shellcheck disable=SC2086 # a list of names without spaces
  limited "$STAGE" TMPDIR="$SCRATCH/t" node --test --test-reporter=tap $files
  conclude tests/node "$(sed -n 's/^# pass //p' "$LOG" | tail -n 1)" "$(sed -n 's/^# fail //p' "$LOG" | tail -n 1)"
}

test_binary() {
  local name=$1 kind=$2 package=$3 binary=$4 staged variables=()
  printf '\n     Running %s (%s of %s)\n' "$name" "$kind" "$package"
  staged=$STAGE/target/debug/$(basename "$binary")
  install -m 0755 "$binary" "$staged"
  if [[ $ALONE_BINARIES == *" $name "* ]]; then
    ALONE=yes
    variables=(TEST_MIRROR="$MIRROR" RUST_TEST_THREADS="$ALONE_THREADS")
  fi
  limited "$STAGE/$package" TMPDIR="$SCRATCH/t" CARGO_MANIFEST_DIR="$(realpath "$STAGE/$package")" \
    CARGO_BIN_EXE_sluice="$STAGE/target/debug/sluice" "${variables[@]}" "$staged"
  ALONE=
  rm -f "$staged"
  conclude "$name" "$(sed -n 's/^test result: .* \([0-9]*\) passed; .*/\1/p' "$LOG" | tail -n 1)" \
    "$(sed -n 's/^test result: .* \([0-9]*\) failed; .*/\1/p' "$LOG" | tail -n 1)"
}

# Counts what one binary said; what it did not say for itself is one failure more.
conclude() {
  local name=$1 passed=${2:-0} failed=${3:-0}
  if [ "$STATUS" -ne 0 ] && [ "$failed" -eq 0 ]; then
    case $STATUS in
      124 | 137) say "$name: FAILED: not done after $BINARY_S_MAX s" ;;
      *) say "$name: FAILED: ended with exit code $STATUS" ;;
    esac
    failed=1
  fi
  # Tests clean up after themselves.
  if [ -n "$LEFT" ]; then
    say "$name: FAILED: left behind, and ended now:"
    printf '%s\n' "$LEFT" >&2
    failed=$((failed + 1))
  fi
  PASSED=$((PASSED + passed))
  FAILED=$((FAILED + failed))
}

main "$@"
