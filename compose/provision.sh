#!/usr/bin/env bash
# Makes a Debian machine ready to build, test and run Sluice: installs what is
# missing, prepares the unprivileged user whose Podman runs the containers, and
# checks the compiler. Silent and quick when there is nothing to do.
#
#   compose/provision.sh             everything that make test and make demo need
#   compose/provision.sh --run-only  what an agent needs; no compiler
#
# As root it creates the user `sluice` (or $SLUICE_USER); as an ordinary user it
# uses that user and asks sudo for the rest. Files that exist are left alone.
set -euo pipefail
# shellcheck source=compose/lib.sh
. "$(dirname "$0")/lib.sh"

RUST_MIN=1.95
# Ids that a container with users of its own needs.
SUBORDINATE_IDS=65536

main() {
  local build=yes
  case ${1:-} in
    '') ;;
    --run-only) build=no ;;
    *) die "unknown argument $1; there is --run-only" ;;
  esac
  install_packages "$build"
  make_user
  give_subordinate_ids
  make_runtime_dir
  open_tun
  configure_podman
  [ "$build" = no ] || check_rust
}

# Adds a package to MISSING unless a program is there for the unprivileged user.
want() {
  PATH=$TARGET_PATH command -v "$1" >/dev/null || MISSING+=("$2")
}

# Whether the distribution has a package, as far as its lists are here.
apt_has() {
  PATH=$TARGET_PATH command -v apt-cache >/dev/null && [ -n "$(apt-cache search --names-only "^$1\$" 2>/dev/null)" ]
}

install_packages() {
  MISSING=()
  want podman podman
  want newuidmap uidmap
  want slirp4netns slirp4netns
  want runc runc
  want crun crun
  want ip iproute2
  want nft nftables
  want nsenter util-linux
  # gVisor is for those who ask for it; not every distribution has it.
  ! apt_has runsc || want runsc runsc
  want openssl openssl
  want tar tar
  [ -e /etc/ssl/certs/ca-certificates.crt ] || MISSING+=(ca-certificates)
  rabbitmq_is_there || MISSING+=(rabbitmq-server)
  # For the tests of an app that uses it.
  [ "$1" != yes ] || postgresql_is_there || MISSING+=(postgresql)
  # npm fetches the runtime image's Node, the bundler and, where Debian's own
  # Node is too old for the tests, a newer one.
  want node nodejs
  want npm npm
  if [ "$1" = yes ]; then
    # schemathesis, which tests the API, is installed into a place of its own.
    PATH=$TARGET_PATH python3 -c 'import ensurepip, venv' 2>/dev/null || MISSING+=(python3-venv)
    # A terminal for the tests of what is full-screen.
    want tmux tmux
    want cc build-essential
    want git git
  fi
  [ ${#MISSING[@]} -eq 0 ] && return
  PATH=$TARGET_PATH command -v apt-get >/dev/null ||
    die "this machine lacks ${MISSING[*]} (Debian's names) and has no apt-get: install them by its own means"
  if [ ${#SUDO[@]} -ne 0 ] && ! command -v sudo >/dev/null; then
    die "there is no sudo: as root, run: apt-get install ${MISSING[*]}"
  fi
  say "installing ${MISSING[*]}"
  hold_services_back
  "${SUDO[@]}" apt-get update -q >&2 || die "apt-get update failed: see above"
  "${SUDO[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends \
    "${MISSING[@]}" >&2 </dev/null || die "apt-get install failed: see above"
  let_services_go
}

rabbitmq_is_there() {
  compgen -G '/usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin/rabbitmq-server' >/dev/null ||
    PATH=$TARGET_PATH command -v rabbitmq-server >/dev/null
}

postgresql_is_there() {
  compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || PATH=$TARGET_PATH command -v initdb >/dev/null
}

# Debian starts a service as it installs it, and at every boot. The agent runs a
# private broker and a test a database of its own instead, so a RabbitMQ or a
# PostgreSQL that comes with this script stays off.
hold_services_back() {
  POLICY=/usr/sbin/policy-rc.d
  POLICY_SAVED=$(mktemp)
  if [ -e $POLICY ]; then
    cp -p $POLICY "$POLICY_SAVED"
    POLICY_WAS=there
  else
    POLICY_WAS=absent
  fi
  trap 'let_services_go' EXIT
  printf '#!/bin/sh\nexit 101\n' | "${SUDO[@]}" tee $POLICY >/dev/null
  "${SUDO[@]}" chmod 0755 $POLICY
  local unit units=()
  [[ " ${MISSING[*]} " != *' rabbitmq-server '* ]] || units+=(rabbitmq-server.service)
  [[ " ${MISSING[*]} " != *' postgresql '* ]] || units+=(postgresql.service)
  command -v epmd >/dev/null || units+=(epmd.service epmd.socket)
  for unit in "${units[@]}"; do
    # What `systemctl mask` does, also where systemd is not there yet.
    "${SUDO[@]}" install -d /etc/systemd/system
    [ -e "/etc/systemd/system/$unit" ] || "${SUDO[@]}" ln -sf /dev/null "/etc/systemd/system/$unit"
  done
}

let_services_go() {
  trap - EXIT
  if [ "$POLICY_WAS" = there ]; then
    "${SUDO[@]}" cp -p "$POLICY_SAVED" $POLICY
  else
    "${SUDO[@]}" rm -f $POLICY
  fi
  rm -f "$POLICY_SAVED"
}

make_user() {
  getent passwd "$TARGET_USER" >/dev/null && return
  say "creating the user $TARGET_USER"
  useradd --create-home --shell /bin/bash --comment 'Sluice agent' "$TARGET_USER"
}

give_subordinate_ids() {
  local kind first
  for kind in uid gid; do
    has_subordinate_ids "/etc/sub$kind" && continue
    # The first range that overlaps nobody's.
    first=$(cat /etc/subuid /etc/subgid 2>/dev/null |
      awk -F: -v first=100000 '{ end = $2 + $3; if (end > first) first = end } END { print first }')
    say "giving $TARGET_USER sub${kind}s from $first"
    "${SUDO[@]}" usermod "--add-sub${kind}s" "$first-$((first + SUBORDINATE_IDS - 1))" "$TARGET_USER"
    # Podman reads the ranges once, when its pause process starts.
    as_user podman system migrate >/dev/null 2>&1 || true
  done
}

has_subordinate_ids() {
  [ -r "$1" ] && awk -F: -v user="$TARGET_USER" -v uid="$(id -u "$TARGET_USER")" -v need="$SUBORDINATE_IDS" \
    '($1 == user || $1 == uid) && $3 >= need { found = 1 } END { exit !found }' "$1"
}

# Where a login would have made it; a service user never logs in.
make_runtime_dir() {
  local dir
  dir=$(target_runtime_dir)
  [ -d "$dir" ] && [ "$(stat -c %u "$dir")" = "$(id -u "$TARGET_USER")" ] && return
  if [ -d /run/systemd/system ] && command -v loginctl >/dev/null; then
    say "letting $TARGET_USER linger, so that $dir is there from boot"
    "${SUDO[@]}" loginctl enable-linger "$TARGET_USER" || true
    local _
    for _ in 1 2 3 4 5 6 7 8 9 10; do
      [ -d "$dir" ] && return
      sleep 0.5
    done
  fi
  say "making $dir"
  "${SUDO[@]}" install -d -m 0755 "$(dirname "$dir")"
  "${SUDO[@]}" install -d -m 0700 -o "$TARGET_USER" -g "$(id -g "$TARGET_USER")" "$dir"
}

# slirp4netns makes each app's interface through it. udev opens it to all; where
# there is no udev, it is root's alone.
open_tun() {
  local tun=/dev/net/tun
  as_user test -r $tun -a -w $tun && return
  [ -e $tun ] || "${SUDO[@]}" modprobe tun 2>/dev/null || true
  if [ ! -e $tun ]; then
    say "making $tun"
    "${SUDO[@]}" install -d -m 0755 /dev/net
    "${SUDO[@]}" mknod $tun c 10 200 || true
  fi
  as_user test -r $tun -a -w $tun && return
  say "opening $tun to all users, as udev would"
  "${SUDO[@]}" chmod 0666 $tun ||
    say "$tun stays closed: apps get no network here; set SLUICE_RUNTIME_NETWORK=none"
}

configure_podman() {
  local config store
  config=$(target_home)/.config/containers
  store=$(target_home)/.local/share/containers/storage
  as_user test -e "$config/containers.conf" || write_as_user "$config/containers.conf" < <(containers_conf)
  as_user test -e "$config/storage.conf" && return
  # A store keeps the driver it was made with.
  as_user test -e "$store" && return
  local driver=overlay why
  if ! why=$(as_user podman --storage-driver overlay info 2>&1 >/dev/null); then
    if as_user podman --storage-driver vfs info >/dev/null 2>&1; then
      say "this kernel has no rootless overlay: containers start slower and take more disk"
      driver=vfs
    else
      say "Podman does not work for $TARGET_USER yet: $(tail -n 1 <<<"$why")"
    fi
    as_user rm -rf "$store"
  fi
  write_as_user "$config/storage.conf" < <(printf '[storage]\ndriver = "%s"\n' "$driver")
}

containers_conf() {
  printf '[containers]\n'
  printf '# A host that may not raise limits refuses to start a container with some.\n'
  printf 'default_ulimits = []\n\n[engine]\n'
  if [ ! -e /sys/fs/cgroup/cgroup.controllers ]; then
    printf '# crun does not work with cgroup v1 beside v2.\nruntime = "runc"\n'
  fi
  if [ ! -S "$(target_runtime_dir)/systemd/private" ]; then
    printf '# There is no systemd session for this user.\ncgroup_manager = "cgroupfs"\n'
  fi
  if [ ! -S /run/systemd/journal/socket ]; then
    printf '# There is no journal.\nevents_logger = "file"\n'
  fi
}

write_as_user() {
  say "writing $1"
  as_user mkdir -p "$(dirname "$1")"
  as_user tee "$1" >/dev/null
}

check_rust() {
  command -v cargo >/dev/null && command -v rustc >/dev/null ||
    die "there is no Rust compiler: install Rust $RUST_MIN or later with rustup, then run this again"
  local version
  version=$(cd "$REPOSITORY" && rustc --version | cut -d' ' -f2)
  [ "$(printf '%s\n%s\n' "$RUST_MIN" "$version" | sort -V | head -n 1)" = "$RUST_MIN" ] ||
    die "Rust $version is too old: Sluice needs $RUST_MIN or later; run: rustup update stable"
}

main "$@"
