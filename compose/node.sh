# Fetches the Node.js binary that the npm registry carries as a package; sourced
# after lib.sh, never run. Pinned by content, so the registry need not be trusted.
# shellcheck shell=bash

NODE_VERSION=22.23.3
declare -A NODE_INTEGRITY=(
  [x64]='sha512-qHnz5tFsHoj/WM+uRENVjWONi5hVvmwrgq8A4V76KpuVNAc4+jwK8x4gwbobE9BtHNg/AKR2583eYorLF/c7ng=='
  [arm64]='sha512-l3DAHZreylo+p9QXDtsOrjG2JXJqVzYXnAGmIQNOUNARcMppTO2cmewVQP+36tjJnSE+dzpMNtgW+c3oiDvXtA=='
)

# The npm registry's word for this machine.
node_arch() {
  case $(uname -m) in
    x86_64) echo x64 ;;
    aarch64) echo arm64 ;;
    *) die "no Node.js package for $(uname -m)" ;;
  esac
}

# Puts the pinned `node` at the path $1.
fetch_node() {
  local arch work tarball digest
  arch=$(node_arch)
  work=$(mktemp -d)
  say "fetching Node.js $NODE_VERSION ($arch)"
  (cd "$work" && npm pack --loglevel=error "node-linux-$arch@$NODE_VERSION" >/dev/null) || die "npm pack failed"
  tarball=$(echo "$work"/*.tgz)
  digest=sha512-$(openssl dgst -sha512 -binary <"$tarball" | base64 -w0)
  [ "$digest" = "${NODE_INTEGRITY[$arch]}" ] || die "the Node.js package is not the pinned one: $digest"
  tar -xzf "$tarball" -C "$work" package/bin/node
  install -D -m 0755 "$work/package/bin/node" "$1"
  rm -rf "$work"
}
