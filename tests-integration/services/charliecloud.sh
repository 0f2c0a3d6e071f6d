#!/bin/bash
# Charliecloud's ch-run: containers without a daemon, in the process that starts them.
#   charliecloud.sh install    apt package (root, once)
set -euo pipefail
install() {
  export DEBIAN_FRONTEND=noninteractive
  command -v ch-run >/dev/null 2>&1 ||
    apt-get -o DPkg::Lock::Timeout=300 install -y --no-install-recommends charliecloud-runtime
}
case ${1:-} in install) install ;; *) sed -n '2,3p' "$0"; exit 2 ;; esac
