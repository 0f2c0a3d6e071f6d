#!/bin/bash
# A real HTCondor (23.9) whose slots share no disk with the host that submits: collector, negotiator and schedd on the laptop of
# second_machine.sh, a startd of one partitionable slot on each node, whose jobs are alice's.
#   machines_condor.sh install        HTCondor in /opt/flow-condor and in the layer `condor` of the machines (root, once; some minutes)
#   machines_condor.sh start K ...    after `SM_LAYERS=condor second_machine.sh start K ...`, with the same SM_DIR; prints the exports
# Commands are to be run as `unshare --user --map-user=1500 --map-group=1500 ...`: HTCondor refuses jobs of root. It ends with the machines.
# Debian 12 has no HTCondor: it is that of Debian 13, with the libraries that it was built with beside it.
set -euo pipefail
HERE=$(cd "$(dirname "$0")" && pwd); M="bash $HERE/second_machine.sh"; P=/opt/flow-condor; W=/run/flow-condor; PORT=19618
D=${SM_DIR:-/tmp/flow-machines-$(id -u)}; CACHE=${SM_CACHE:-/var/cache/flow-second-machine}

install() {
  [ -x "$P/bin/condor_submit" ] || {
    local f d
    part=$P.part   # not local, nor is r: the trap is run when this function has ended
    command -v patchelf >/dev/null || apt-get -o DPkg::Lock::Timeout=300 install -y --no-install-recommends patchelf debootstrap
    r=$(mktemp -d /opt/flow-trixie.XXXXXX)
    trap 'rm -rf "$r" "$part"' EXIT
    debootstrap --variant=minbase --include=ca-certificates,procps trixie "$r" ${SM_MIRROR:-}
    printf '#!/bin/sh\nexit 101\n' >"$r/usr/sbin/policy-rc.d"; chmod 755 "$r/usr/sbin/policy-rc.d"
    cp /etc/resolv.conf "$r/etc/"; cp -r /etc/apt/apt.conf.d/. "$r/etc/apt/apt.conf.d/"
    unshare --mount --propagation private sh -c 'mount -t proc proc "$1/proc" && DEBIAN_FRONTEND=noninteractive chroot "$1" sh -c "apt-get -qq update && apt-get -qq install -y --no-install-recommends condor"' x "$r"
    mkdir -p "$part"/{bin,sbin,lib}; cp -a "$r"/usr/lib/x86_64-linux-gnu/*.so* "$r"/usr/lib/libcondor* "$r"/usr/lib/libclassad* "$part/lib/"
    cp -a "$r/usr/libexec/condor" "$part/libexec"
    for d in bin sbin; do chroot "$r" dpkg -L condor | grep "^/usr/$d/" | while read -r f; do cp -a "$r$f" "$part/$d/"; done; done
    for f in "$part"/{bin,sbin,libexec}/*; do
      [ -f "$f" ] && [ ! -L "$f" ] && patchelf --print-interpreter "$f" >/dev/null 2>&1 || continue
      patchelf --set-interpreter $P/lib/ld-linux-x86-64.so.2 --force-rpath --set-rpath $P/lib "$f"
    done
    for f in "$part"/lib/libcondor* "$part"/lib/libclassad*; do [ -L "$f" ] || patchelf --force-rpath --set-rpath $P/lib "$f"; done
    rm -rf $P; mv "$part" $P
  }
  [ -d "$CACHE/layer-condor" ] || { mkdir -p "$CACHE/layer-condor.part/opt"; cp -a $P "$CACHE/layer-condor.part/opt/"; mv "$CACHE/layer-condor.part" "$CACHE/layer-condor"; }
}
conf() {   # $1: the machine's address, $2: its name, $3: the daemons
  cat <<E2
RELEASE_DIR = $P
LOCAL_DIR = $W
LOG = $W/log
SPOOL = $W/spool
EXECUTE = $W/execute
LOCK = $W/lock
RUN = $W/run
BIN = $P/bin
SBIN = $P/sbin
LIB = $P/lib
LIBEXEC = $P/libexec
CONDOR_HOST = $(cat "$D/laptop/addr")
COLLECTOR_HOST = $(cat "$D/laptop/addr"):$PORT
NETWORK_INTERFACE = $1
# nobody answers questions for names here
NO_DNS = True
DEFAULT_DOMAIN_NAME = flow.test
UID_DOMAIN = flow.test
TRUST_UID_DOMAIN = True
FILESYSTEM_DOMAIN = $2
SCHEDD_NAME = flow@laptop
DAEMON_LIST = $3
USE_SHARED_PORT = False
MAIL = /bin/true
SEC_DEFAULT_AUTHENTICATION = OPTIONAL
SEC_DEFAULT_AUTHENTICATION_METHODS = FS, CLAIMTOBE
ALLOW_READ = *
ALLOW_WRITE = *
ALLOW_DAEMON = *
ALLOW_ADMINISTRATOR = *
ALLOW_NEGOTIATOR = *
ALLOW_CLIENT = *
NUM_CPUS = 4
MEMORY = 4000
START = TRUE
SUSPEND = FALSE
PREEMPT = FALSE
KILL = FALSE
SCHEDD_INTERVAL = 2
NEGOTIATOR_INTERVAL = 2
NEGOTIATOR_CYCLE_DELAY = 1
UPDATE_INTERVAL = 5
CGROUP_TRACKING = False
DISCARD_SESSION_KEYRING_ON_STARTUP = False
# as the Open Science Grid describes its machines
OSGVO_OS_STRING = "RHEL 9"
HAS_MODULES = True
STARTD_ATTRS = OSGVO_OS_STRING, HAS_MODULES
use feature : PartitionableSlot
E2
}
start() {
  local k
  grep -q ^alice: "$D/laptop/passwd" || echo 'alice:x:1500:1500::/home/bob:/bin/bash' >>"$D/laptop/passwd"
  $M laptop sh -c "mkdir -p $W && mount -t tmpfs -o mode=755 tmpfs $W && mkdir -p $W/log $W/spool $W/execute $W/lock $W/run"
  conf "$(cat "$D/laptop/addr")" laptop "MASTER COLLECTOR NEGOTIATOR SCHEDD" | $M laptop sh -c "cat >$W/condor_config"
  # On a busy machine it has once not found the name of its own user: then it says so, and is started again.
  for k in 1 2 3; do
    CONDOR_CONFIG=$W/condor_config $M laptop unshare --user --map-user=1500 --map-group=1500 $P/sbin/condor_master >&2 && break
    $M laptop sh -c "id; getent passwd 1500; ls -l /etc/passwd" >&2 || true; [ "$k" != 3 ] || return 1; sleep 1
  done
  for k in "$@"; do
    conf "$(cat "$D/$k/addr")" "node$k" "MASTER STARTD" |
      $M exec "$k" sh -c "mkdir -p $W/log $W/spool $W/execute $W/lock $W/run && cat >$W/condor_config && chown -R alice $W
        exec setpriv --reuid=1500 --regid=1500 --init-groups env HOME=/home/alice CONDOR_CONFIG=$W/condor_config $P/sbin/condor_master" >&2
  done
  for _ in $(seq 100); do
    [ "$(CONDOR_CONFIG=$W/condor_config $M laptop $P/bin/condor_status -af Name 2>/dev/null | grep -c slot)" = $# ] &&
      { echo "export CONDOR_CONFIG=$W/condor_config PATH=$P/bin:\$PATH"; return; }
    sleep 0.3
  done
  $M laptop sh -c "tail -n 5 $W/log/*Log" >&2; return 1
}
case ${1:-} in install) install;; start) shift; start "$@";; *) sed -n 2,8p "$0"; exit 2;; esac
