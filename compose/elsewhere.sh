#!/usr/bin/env bash
# Runs a command in this checkout on another release of Debian:
#
#   compose/elsewhere.sh trixie make test
#
# As root. The release's own root directory is made once, with debootstrap, and
# kept below target/elsewhere with what is built there; kernel, network and
# Rust are this machine's. Mounts live in a namespace and end with the command.
set -euo pipefail
# shellcheck source=compose/lib.sh
. "$(dirname "$0")/lib.sh"

[ $# -ge 2 ] || die "usage: compose/elsewhere.sh RELEASE COMMAND…, e.g. compose/elsewhere.sh trixie make test"
[ "$(id -u)" -eq 0 ] || die "run this as root: it mounts"
release=$1
shift
root=$REPOSITORY/target/elsewhere/$release
# Whoever runs things there must reach them, whatever the caller's umask.
umask 022

if [ ! -e "$root/.made" ]; then
  command -v debootstrap >/dev/null || die "debootstrap is missing: apt-get install debootstrap"
  say "making a Debian $release below target/elsewhere"
  rm -rf "$root"
  mkdir -p "$root"
  debootstrap --variant=minbase \
    --include=ca-certificates,git,make,procps,python3,util-linux,xz-utils \
    "$release" "$root" >&2
  touch "$root/.made"
fi

# What tells programs where packages are, and whom to trust.
for file in /etc/resolv.conf /etc/hosts /etc/ssl/certs/ca-certificates.crt "$HOME/.npmrc"; do
  [ ! -e "$file" ] || install -D -m 0644 "$(realpath "$file")" "$root$file"
done
cargo_home=${CARGO_HOME:-$HOME/.cargo}
rustup_home=${RUSTUP_HOME:-$HOME/.rustup}
mkdir -p "$root"/{old,target} "$root$REPOSITORY" "$root$cargo_home" "$root$rustup_home"

# A new root, not a chroot: the kernel makes no user namespace in one of those.
# shellcheck disable=SC2016 # the inner shell expands these
exec unshare --mount --propagation private -- bash -euc '
  root=$1 repository=$2 cargo_home=$3 rustup_home=$4 path=$5
  shift 5
  mount --bind "$root" "$root"
  mount -t proc proc "$root/proc"
  mount --rbind /sys "$root/sys"
  mount --rbind /dev "$root/dev"
  mount -t tmpfs -o mode=0755 tmpfs "$root/run"
  mount --bind "$repository" "$root$repository"
  mount --bind "$root/target" "$root$repository/target"
  mount --bind "$cargo_home" "$root$cargo_home"
  mount --bind "$rustup_home" "$root$rustup_home"
  cd "$root"
  pivot_root . old
  umount --lazy /old
  cd "$repository"
  export PATH=$path RUSTUP_HOME=$rustup_home CARGO_HOME=$cargo_home
  exec "$@"
' elsewhere "$root" "$REPOSITORY" "$cargo_home" "$rustup_home" "$cargo_home/bin:$SYSTEM_PATH" "$@"
