# Shared by the scripts of this folder; sourced, never run.
#
# Root cannot and must not run Podman for Sluice, so everything that touches
# Podman runs as one unprivileged user: `sluice` (or $SLUICE_USER) when the
# caller is root, the caller otherwise.
# shellcheck shell=bash
# shellcheck disable=SC2034 # what is set here is for the scripts that source it

REPOSITORY=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
SCRIPT=$(basename "$0" .sh)
# Node for the tests and the bundler. The harness needs no less (README.md, Requirements).
NODE_MAJOR_MIN=20
# In a network made by alone.sh, another name for the loopback.
MIRROR=10.99.0.1
# Where programs are looked for on behalf of the unprivileged user.
SYSTEM_PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin

say() { printf '%s: %s\n' "$SCRIPT" "$*" >&2; }
die() {
  say "$*"
  exit 1
}

if [ "$(id -u)" -eq 0 ]; then
  TARGET_USER=${SLUICE_USER:-sluice}
  [ "$(id -u "$TARGET_USER" 2>/dev/null)" != 0 ] || die "SLUICE_USER names root: name an ordinary user"
  TARGET_PATH=$SYSTEM_PATH
  SUDO=()
else
  TARGET_USER=$(id -un)
  TARGET_PATH=$PATH:/usr/sbin:/sbin
  SUDO=(sudo)
fi

# One place for what is built, whatever the caller's shell is set to.
export CARGO_TARGET_DIR=$REPOSITORY/target

# A shell without a login does not have rustup's directory.
command -v cargo >/dev/null || PATH=${CARGO_HOME:-${HOME:-/root}/.cargo}/bin:$PATH

# Home directory of the unprivileged user.
target_home() { getent passwd "$TARGET_USER" | cut -d: -f6; }

# Where its Podman keeps sockets and locks.
target_runtime_dir() {
  if [ "$(id -u)" -ne 0 ] && [ -n "${XDG_RUNTIME_DIR:-}" ]; then
    printf '%s' "$XDG_RUNTIME_DIR"
  else
    printf '/run/user/%s' "$(id -u "$TARGET_USER")"
  fi
}

# Runs a command as the unprivileged user, with a fresh environment: what
# proxies, certificates and npm need is passed on, and every setting of Sluice.
# Variables for the command alone go before it, as for env(1). With ALONE set,
# it runs in a network of its own (alone.sh).
as_user() {
  local kept=() name
  while IFS= read -r name; do
    case $name in
      HTTP_PROXY | HTTPS_PROXY | NO_PROXY | http_proxy | https_proxy | no_proxy | \
        SSL_CERT_FILE | SSL_CERT_DIR | NODE_EXTRA_CA_CERTS | npm_config_* | \
        CI | TERM | LANG | RUST_BACKTRACE | FLOWS_* | SLUICE_* | AMQP_URL | CONTAINER_HOST)
        kept+=("$name=${!name}")
        ;;
      DBUS_SESSION_BUS_ADDRESS) [ "$(id -u)" -eq 0 ] || kept+=("$name=${!name}") ;;
    esac
  done < <(compgen -e)
  local drop=()
  if [ "$(id -u)" -eq 0 ]; then
    drop=(setpriv --reuid="$TARGET_USER" --regid="$(id -g "$TARGET_USER")" --init-groups --)
  fi
  if [ -n "${ALONE:-}" ]; then
    drop=("${SUDO[@]}" "$REPOSITORY/compose/alone.sh"
      setpriv --reuid="$TARGET_USER" --regid="$(id -g "$TARGET_USER")" --init-groups --)
  fi
  "${drop[@]}" env -i "${kept[@]}" HOME="$(target_home)" USER="$TARGET_USER" LOGNAME="$TARGET_USER" \
    XDG_RUNTIME_DIR="$(target_runtime_dir)" PATH="$TARGET_PATH" "$@"
}

# A scratch directory that the unprivileged user owns, in SCRATCH; gone when
# the script ends, with every process that was started in it. Its name is
# short, because the path of a unix socket has 108 bytes at most.
make_scratch() {
  SCRATCH=$(mktemp -d /tmp/sl.XXXXXX)
  trap 'remove_scratch' EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM
  mkdir "$SCRATCH/t"
  [ "$(id -u)" -ne 0 ] || chown -R "$TARGET_USER:" "$SCRATCH"
}

remove_scratch() {
  end_strays >/dev/null
  rm -rf "$SCRATCH" 2>/dev/null || as_user podman unshare rm -rf "$SCRATCH" || say "left behind: $SCRATCH"
}

# The processes that were started for SCRATCH and still live. Podman's pause
# process is the user's, whoever started it.
strays() {
  local pause pid
  pause=$(cat "$(target_runtime_dir)/libpod/tmp/pause.pid" 2>/dev/null || true)
  # Finding nothing, and a process that ends meanwhile, are no errors.
  {
    grep --files-with-matches --null-data "^[A-Z_]*=$SCRATCH/" /proc/[0-9]*/environ || true
    grep --files-with-matches --null-data "$SCRATCH/t/" /proc/[0-9]*/cmdline || true
  } 2>/dev/null | cut -d/ -f3 | sort -un | while IFS= read -r pid; do
    # Not a chain of `&&`: the loop's last verdict would be the function's, and
    # end a script whose only stray is the pause process.
    if [ "$pid" != "$pause" ] && [ -e "/proc/$pid" ]; then printf '%s\n' "$pid"; fi
  done
  return 0
}

# Lets what ends by itself end: a container's monitor outlives the container
# that was removed by the moment it takes to clean up.
await_strays() {
  local _
  for _ in {1..50}; do
    [ -n "$(strays)" ] || return 0
    sleep 0.1
  done
}

# Ends every process that was started for SCRATCH and still lives; prints one line for each.
end_strays() {
  local pid
  strays | while IFS= read -r pid; do
    printf 'process %s: %s\n' "$pid" "$(tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | cut -c1-200)"
    kill -KILL "$pid" 2>/dev/null || true
  done
}

# Major version of the first `node` on a PATH; 0 where there is none.
node_major() {
  local version
  version=$(PATH=$1 node --version 2>/dev/null) || version=v0
  version=${version#v}
  printf '%s' "${version%%.*}"
}

# Lets Podman into its user namespace again where everything of it was killed at
# once, as at the end of a container or a session: it then takes for running
# what is gone, and says itself what mends it.
mend_podman() {
  local said
  said=$(as_user podman ps --quiet 2>&1 >/dev/null) && return
  [[ $said == *'podman system migrate'* ]] || return 0
  say "all of $TARGET_USER's Podman was killed at once: podman system migrate"
  # It complains of containers that ended without a word; whoever comes next sees what is wrong.
  as_user podman system migrate >/dev/null 2>&1 || true
}
