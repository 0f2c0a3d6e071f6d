#!/bin/bash
# moto's server, which answers as Amazon does (S3 here), and boto3 that asks it.
#   moto.sh install   pip packages into the environment of $PYTHON (default python3); the tests start the server
set -euo pipefail
case ${1:-} in
  install) "${PYTHON:-python3}" -c 'import moto.server, boto3' 2>/dev/null || "${PYTHON:-python3}" -m pip install 'moto[server,s3]' boto3;;
  *) sed -n '2,3p' "$0"; exit 2;;
esac
