#!/bin/bash
# A FUSE file system that tells no capitals from small letters.
#   folding_disk.sh install    apt package (root, once); tests mount it by tests-integration/staging/folding_disk.py,
#                              which needs fusepy (requirements-services.txt)
set -euo pipefail

install() {
  export DEBIAN_FRONTEND=noninteractive
  ldconfig -p | grep -q 'libfuse\.so\.2' ||
    apt-get -o DPkg::Lock::Timeout=300 install -y --no-install-recommends libfuse2
}
case ${1:-} in
  install) install ;;
  *) sed -n '2,4p' "$0"; exit 2 ;;
esac
