#!/bin/sh
# Debian's Chromium and its driver, for the tests of the web pages (needs root).
set -eu
apt-get update -q
DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends chromium chromium-driver fonts-dejavu-core
