#!/bin/bash
# An emulator of Google Cloud Storage, and gcsfs that asks it.
#   gcs.sh install   pip packages into the environment of $PYTHON (default python3); the tests start the server
set -euo pipefail
case ${1:-} in
  install) "${PYTHON:-python3}" -c 'import gcp_storage_emulator, gcsfs' 2>/dev/null || "${PYTHON:-python3}" -m pip install gcp-storage-emulator gcsfs;;
  *) sed -n '2,3p' "$0"; exit 2;;
esac
