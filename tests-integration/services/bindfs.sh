#!/bin/bash
# A FUSE file system that mirrors a directory, and hangs while its process is stopped.
#   bindfs.sh install    apt package (root, once); tests mount it themselves by "bindfs -f DIR WHERE"
set -euo pipefail

install() {
  export DEBIAN_FRONTEND=noninteractive
  command -v bindfs >/dev/null || apt-get -o DPkg::Lock::Timeout=300 install -y --no-install-recommends bindfs
}
case ${1:-} in
  install) install ;;
  *) sed -n '2,3p' "$0"; exit 2 ;;
esac
