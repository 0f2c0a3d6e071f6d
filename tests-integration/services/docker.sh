#!/bin/bash
# docker's client, which the tests point at podman's socket. No daemon of docker's is started.
#   docker.sh install    apt package (root, once)
set -euo pipefail
install() {
  export DEBIAN_FRONTEND=noninteractive
  command -v docker >/dev/null 2>&1 && return 0
  apt-get -o DPkg::Lock::Timeout=300 install -y --no-install-recommends docker-cli ||
    apt-get -o DPkg::Lock::Timeout=300 install -y --no-install-recommends docker.io
}
case ${1:-} in install) install ;; *) sed -n '2,3p' "$0"; exit 2 ;; esac
