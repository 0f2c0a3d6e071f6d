#!/bin/sh
# Debian's Chromium and its driver, for the tests of the web pages.
#   chromium.sh install     installs the packages (needs root)
set -eu

case "${1:-}" in
install)
    apt-get update -q
    DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends \
        chromium chromium-driver fonts-dejavu-core
    ;;
*)
    echo "usage: $0 install" >&2
    exit 2
    ;;
esac
