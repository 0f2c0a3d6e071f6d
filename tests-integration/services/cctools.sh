#!/bin/bash
# Work Queue and TaskVine of the Cooperative Computing Tools, with their own Python bindings. No package index has these, and
# Debian 12 has none of them: they are those of Debian 13, with its Python and the libraries that they were built with beside them.
#   cctools.sh install   in /opt/flow-cctools (root, once; about two minutes)
#   cctools.sh env       prints the variable of the tests: CCTOOLS_TEST_BIN
set -euo pipefail
P=/opt/flow-cctools

install() {
  [ -x "$P/bin/vine_worker" ] && return
  command -v patchelf debootstrap >/dev/null || apt-get -o DPkg::Lock::Timeout=300 install -y --no-install-recommends patchelf debootstrap
  part=$P.part   # not local, nor is r: the trap is run when this function has ended
  r=$(mktemp -d /opt/flow-trixie.XXXXXX)
  trap 'rm -rf "$r" "$part"' EXIT
  debootstrap --variant=minbase --include=ca-certificates,procps,python3,python3-workqueue,coop-computing-tools,python3-cloudpickle trixie "$r" ${SM_MIRROR:-}
  rm -rf "$part"; mkdir -p "$part/bin" "$part/lib/python3/dist-packages"
  cp -a "$r"/usr/lib/x86_64-linux-gnu/*.so* "$part/lib/"
  cp -a "$r/usr/lib/python3.13" "$part/lib/python3.13"
  cp -a "$r"/usr/lib/python3/dist-packages/{ndcctools,cloudpickle} "$part/lib/python3/dist-packages/"
  for f in python3.13 work_queue_worker vine_worker; do
    cp -a "$r/usr/bin/$f" "$part/bin/"
    patchelf --set-interpreter $P/lib/ld-linux-x86-64.so.2 --force-rpath --set-rpath $P/lib "$part/bin/$f"
  done
  ln -s python3.13 "$part/bin/python3"
  rm -rf $P; mv "$part" $P
}
case ${1:-} in
  install) install;;
  env) echo "export CCTOOLS_TEST_BIN=$P/bin";;
  *) sed -n '2,6p' "$0"; exit 2;;
esac
