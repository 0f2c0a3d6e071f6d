#!/bin/bash
# A real `qsub`/`qstat`/`qdel`/`pbsnodes` of the Torque kind: Debian's slurm-wlm-torque wrappers over the Slurm of slurm.sh.
#   torque.sh install   (root, once)     torque.sh start | stop (= slurm.sh with the PBS environment in jobs)
#   torque.sh env       prints the exports: SLURM_CONF and a PATH with the wrappers in front
# The package conflicts with gridengine-client (both own /usr/bin/qsub), so it is unpacked into its own directory:
# the two can then be used side by side, each by its PATH.
set -euo pipefail
HERE=$(cd "$(dirname "$0")" && pwd)
T=${TORQUE_TEST_PREFIX:-/opt/slurm-torque}; D=${SLURM_TEST_DIR:-/tmp/flow-slurm-$(id -u)}
install() {
  "$HERE/slurm.sh" install
  export DEBIAN_FRONTEND=noninteractive
  dpkg -s libslurm-perl libslurmdb-perl libswitch-perl >/dev/null 2>&1 ||
    apt-get -o DPkg::Lock::Timeout=300 install -y --no-install-recommends libslurm-perl libslurmdb-perl libswitch-perl
  [ ! -x "$T/usr/bin/qsub" ] || return 0
  local w; w=$(mktemp -d); chmod 755 "$w"
  (cd "$w" && apt-get download -q slurm-wlm-torque 2>/dev/null && dpkg-deb -x slurm-wlm-torque_*.deb "$T"); rm -rf "$w"
  # qsub and its kin look for sbatch & co. in their own directory
  local x; for x in sbatch salloc srun squeue scancel scontrol sinfo; do ln -sf "/usr/bin/$x" "$T/usr/bin/$x"; done
}
start() {
  mkdir -p "$D"
  # beside slurm.conf: sets PBS_JOBID, PBS_JOBNAME, PBS_O_WORKDIR, ... in the jobs
  echo 'optional spank_pbs.so' >"$D/plugstack.conf"
  cat >"$D/task_prolog.sh" <<E
#!/bin/sh
# the job's nodes, one line per task, in \$PBS_NODEFILE
[ "\$SLURM_PROCID" = 0 ] && f=\$($T/usr/bin/generate_pbs_nodefile 2>/dev/null) && echo "export PBS_NODEFILE=\$f"
exit 0
E
  chmod 755 "$D/task_prolog.sh"
  SLURM_TEST_EXTRA="TaskProlog=$D/task_prolog.sh" "$HERE/slurm.sh" start >/dev/null
  env_
}
env_() { echo "export SLURM_CONF=$D/slurm.conf PATH=$T/usr/bin:\$PATH"; }
case ${1:-} in install) install;; start) start;; stop) "$HERE/slurm.sh" stop;; env) env_;; *) sed -n '2,6p' "$0"; exit 2;; esac
