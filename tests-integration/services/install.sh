#!/usr/bin/env bash
# Installs what the tests on real services need: each script beside this one knows how to install its own service.
# Debian, root. A service that cannot be installed is named, and fails the whole when FLOW_REQUIRE_SERVICES=1.
set -u
cd "$(dirname "$0")"
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq || true
failed=()
for script in *.sh; do
  [ "$script" = install.sh ] && continue
  began=$SECONDS
  if bash "$script" install >"/tmp/flow-install-$$.log" 2>&1; then
    echo "installed: ${script%.sh} ($((SECONDS - began)) s)"
  else
    failed+=("${script%.sh}")
    tail -n 20 "/tmp/flow-install-$$.log" >&2
  fi
  rm -f "/tmp/flow-install-$$.log"
done
if [ ${#failed[@]} -gt 0 ]; then
  echo "could not be installed: ${failed[*]}" >&2
  [ "${FLOW_REQUIRE_SERVICES:-0}" = 1 ] && exit 1
fi
exit 0
