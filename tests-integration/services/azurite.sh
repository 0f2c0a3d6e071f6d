#!/bin/bash
# Azurite, an emulator of Azure's blob storage, and adlfs that asks it.
#   azurite.sh install   npm package (root, once), pip package into the environment of $PYTHON (default python3); the
#                        tests start the server
set -euo pipefail

install() {
  export DEBIAN_FRONTEND=noninteractive
  command -v npm >/dev/null || apt-get -o DPkg::Lock::Timeout=300 install -y --no-install-recommends nodejs npm
  command -v azurite-blob >/dev/null || npm install --global --no-audit --no-fund azurite@3
  "${PYTHON:-python3}" -c 'import adlfs' 2>/dev/null || "${PYTHON:-python3}" -m pip install adlfs
}

case ${1:-} in
  install) install;;
  *) sed -n '2,4p' "$0"; exit 2;;
esac
