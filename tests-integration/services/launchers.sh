#!/bin/bash
# Open MPI and GNU parallel, for the launchers that use them. There is no daemon.
#   launchers.sh install   apt packages (root, once)      launchers.sh start | stop   nothing to do
set -euo pipefail
install() {
  export DEBIAN_FRONTEND=noninteractive
  dpkg -s openmpi-bin parallel >/dev/null 2>&1 ||
    apt-get -o DPkg::Lock::Timeout=300 install -y --no-install-recommends openmpi-bin parallel
}
case ${1:-} in install) install ;; start | stop) ;; *) sed -n '2,3p' "$0"; exit 2 ;; esac
