#!/usr/bin/env bash
# Builds the runtime image, localhost/sluice-runtime:latest, in the invoking
# user's Podman store, without a container registry: Debian packages for the C
# library and the certificates, and the Node.js binary that the npm registry
# carries as a package.
#
# Idempotent: an image with the same recipe is left as it is.
# Needs: podman, npm, dpkg-deb, apt-get with a package list (apt-get update).
set -euo pipefail

# shellcheck source=compose/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=compose/node.sh
. "$(dirname "$0")/node.sh"

IMAGE=${1:-localhost/sluice-runtime:latest}
# What the Node binary links to, and the roots that TLS needs.
PACKAGES=(libc6 libgcc-s1 libstdc++6 libatomic1 ca-certificates)

[ "$(id -u)" -ne 0 ] || die "run this as the unprivileged user whose Podman runs the agent, not as root"
for program in podman npm dpkg-deb apt-get; do
  command -v "$program" >/dev/null || die "$program is missing: run compose/provision.sh"
done

arch=$(node_arch)
recipe=$(cat "$REPOSITORY"/compose/{runtime-image,node}.sh | sha256sum | cut -c1-16)-$arch
if [ "$(podman image inspect --format '{{index .Labels "io.sluice.recipe"}}' "$IMAGE" 2>/dev/null)" = "$recipe" ]; then
  say "$IMAGE is up to date"
  exit 0
fi

before=$(podman image inspect --format '{{.Id}}' "$IMAGE" 2>/dev/null || true)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/root
mkdir -p "$root" "$work/debs"
cd "$work"

say "fetching Debian packages: ${PACKAGES[*]}"
# A cache of its own, because the system's may belong to root alone.
(cd debs && apt-get -o Dir::Cache="$work" -o APT::Sandbox::User="$(id -un)" download "${PACKAGES[@]}" >/dev/null) ||
  die "apt-get download failed: run 'apt-get update' as root first"
for deb in debs/*.deb; do
  dpkg-deb --extract "$deb" "$root"
done
# From Debian 13 on packages name files below usr/ alone, and these are links;
# a program still names its loader by the old path.
for name in bin lib lib64 sbin; do
  [ -e "$root/$name" ] || ln -s "usr/$name" "$root/$name"
done

fetch_node "$root/usr/local/bin/node"

say "assembling"
rm -rf "$root"/usr/share/{doc,man,locale,lintian,gcc,gdb} "$root"/usr/lib/*/gconv "$root"/etc/ca-certificates*
mkdir -p "$root"/{etc/ssl/certs,tmp,proc,sys,dev,run,sluice,home/node}
chmod 1777 "$root/tmp"
find "$root/usr/share/ca-certificates" -name '*.crt' -print0 | sort -z | xargs -0 cat >"$root/etc/ssl/certs/ca-certificates.crt"
rm -rf "$root/usr/share/ca-certificates"
printf 'root:x:0:0:root:/:/sbin/nologin\nnode:x:1000:1000:node:/home/node:/sbin/nologin\n' >"$root/etc/passwd"
printf 'root:x:0:\nnode:x:1000:\n' >"$root/etc/group"
printf 'hosts: files dns\n' >"$root/etc/nsswitch.conf"

say "importing into Podman"
tar --numeric-owner --owner=0 --group=0 -C "$root" -c . |
  podman import --quiet \
    --change 'USER 1000:1000' \
    --change 'ENV PATH=/usr/local/bin:/usr/bin:/bin' \
    --change 'ENV SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt' \
    --change 'CMD ["node"]' \
    --change "LABEL io.sluice.recipe=$recipe" \
    - "$IMAGE" >/dev/null
# The image this one replaces goes, unless a container still runs from it.
[ -z "$before" ] || podman image rm "$before" >/dev/null 2>&1 || true
say "built $IMAGE with Node.js $NODE_VERSION"
