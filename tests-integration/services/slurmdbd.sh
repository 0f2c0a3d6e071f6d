#!/bin/bash
# A Slurm of one node with accounting (MariaDB, slurmdbd, sacct) that forgets ended jobs soon: slurm.sh, beside its own.
#   slurmdbd.sh install | start (6 s the first time) | stop | clean | env
set -euo pipefail
export SLURM_TEST_ACCT=1 SLURM_TEST_NODES=1 SLURM_TEST_MINJOBAGE=2
export SLURM_TEST_DIR=${SLURMDBD_TEST_DIR:-/tmp/flow-slurmdbd-$(id -u)} SLURM_TEST_PORT=${SLURMDBD_TEST_PORT:-18110}
case ${1:-} in
  install | start | stop | clean | env) exec "$(dirname "$0")/slurm.sh" "$1" ;;
  *) sed -n '2,3p' "$0"; exit 2 ;;
esac
