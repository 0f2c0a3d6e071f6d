#!/bin/bash
# Open MPI (Debian), for executors and tasks that are MPI jobs; mpi4py comes by pip, as a wheel that finds this MPI.
#   openmpi.sh install      apt packages (root, once)
# Root needs OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1.
set -euo pipefail

install() {
  export DEBIAN_FRONTEND=noninteractive
  command -v mpiexec >/dev/null && command -v mpicc >/dev/null && return
  apt-get -o DPkg::Lock::Timeout=300 install -y --no-install-recommends openmpi-bin libopenmpi-dev
}

case ${1:-} in install) install;; *) sed -n '2,4p' "$0"; exit 2;; esac
