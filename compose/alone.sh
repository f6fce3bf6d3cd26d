#!/usr/bin/env bash
# Runs a command in a network namespace of its own, as root: no packet of it
# leaves the machine, and every port is free.
#
# Apps reach no address of their host. In this namespace MIRROR (lib.sh) is an
# address that is not the host's, and leads to the loopback all the same: what a
# test serves there is to an app a server somewhere in a private network.
set -euo pipefail
# shellcheck source=compose/lib.sh
. "$(dirname "$0")/lib.sh"

[ "${1:-}" = --inside ] || exec unshare --net -- "$0" --inside "$@"
shift
ip link set lo up
ip route add "$MIRROR" dev lo src 127.0.0.1
nft -f - <<NFT
table ip mirror {
  chain out {
    type nat hook output priority -100
    ip daddr $MIRROR dnat to 127.0.0.1
  }
}
NFT
exec "$@"
