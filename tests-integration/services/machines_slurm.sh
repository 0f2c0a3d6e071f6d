#!/bin/bash
# A real Slurm whose nodes share no disk with the host that submits: slurmctld on the laptop of second_machine.sh, slurmd on nodes.
#   machines_slurm.sh install        packages for both (root, once)
#   machines_slurm.sh start K ...    after `SM_LAYERS=slurm second_machine.sh start K ...`, with the same SM_DIR; prints the exports
# It ends with the machines.
set -euo pipefail
HERE=$(cd "$(dirname "$0")" && pwd); M="bash $HERE/second_machine.sh"; W=/run/flow-slurm; PORT=17810
D=${SM_DIR:-/tmp/flow-machines-$(id -u)}

install() { bash "$HERE/slurm.sh" install; $M layer slurm slurmd slurm-client munge; }
conf() {
  local k
  cat <<E2
ClusterName=apart
SlurmctldHost=laptop($(cat "$D/laptop/addr"))
SlurmctldPort=$PORT
AuthType=auth/munge
AuthInfo=socket=$W/munge/socket
SlurmUser=root
SlurmdUser=root
StateSaveLocation=$W/state
SlurmdSpoolDir=$W/spool
SlurmctldPidFile=$W/slurmctld.pid
SlurmdPidFile=$W/slurmd.pid
SlurmctldLogFile=$W/slurmctld.log
SlurmdLogFile=$W/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SwitchType=switch/none
MpiDefault=none
PropagateResourceLimits=NONE
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=100
SchedulerParameters=sched_interval=1,batch_sched_delay=0,bf_interval=1,sched_min_interval=0
JobCompType=jobcomp/none
KillWait=2
ReturnToService=2
$(for k in "$@"; do echo "NodeName=node$k NodeAddr=$(cat "$D/$k/addr") Port=$((PORT + 1)) CPUs=4 RealMemory=4000"; done)
PartitionName=debug Nodes=ALL Default=YES MaxTime=INFINITE State=UP
E2
}
munge="chown -R 0:0 $W && chmod 755 $W $W/munge && munged --force --socket=$W/munge/socket --key-file=$W/munge/key --pid-file=$W/munge/pid --log-file=$W/munge/log --seed-file=$W/munge/seed"
start() {
  local k
  # in memory of the laptop: nothing of it is on this machine
  $M laptop sh -c "mkdir -p $W && mount -t tmpfs -o mode=755 tmpfs $W && mkdir -p $W/munge $W/state && umask 077 && head -c 1024 /dev/urandom >$W/munge/key"
  conf "$@" | $M laptop sh -c "cat >$W/slurm.conf"
  $M laptop sh -c "$munge && SLURM_CONF=$W/slurm.conf slurmctld" >&2
  for k in "$@"; do
    $M laptop tar -C $W -c munge/key slurm.conf | $M exec "$k" sh -c "mkdir -p $W/spool && tar -C $W -x && echo CgroupPlugin=cgroup/v1 >$W/cgroup.conf && $munge && SLURM_CONF=$W/slurm.conf slurmd -N node$k" >&2
  done
  for _ in $(seq 100); do
    [ "$(SLURM_CONF=$W/slurm.conf $M laptop sinfo -h -N -t idle | grep -c node)" = $# ] && { echo "export SLURM_CONF=$W/slurm.conf"; return; }
    sleep 0.3
  done
  $M laptop tail -n 5 $W/slurmctld.log >&2; return 1
}
case ${1:-} in install) install;; start) shift; start "$@";; *) sed -n 2,5p "$0"; exit 2;; esac
