#!/bin/bash
# Real Slurm 22.05 (Debian 12), several virtual nodes on one machine, no systemd, no cgroups.
#   slurm.sh install   apt packages (root, once)
#   slurm.sh start     munged + slurmctld + one slurmd per virtual node (0.4 s); prints the export to use
#   slurm.sh stop      cancels the jobs, then ends exactly those daemons, by pid file
#   slurm.sh clean     removes the directory (job ids start at 1 again)
#   slurm.sh env       prints "export SLURM_CONF=..." (eval it, or put SLURM_CONF in the test's environment)
# Works as root (jobs of any user) AND as a plain user (only that user's jobs).
# Knobs (environment), the same for every call:
#   SLURM_TEST_DIR       SLURM_TEST_PORT (17810)   SLURM_TEST_NODES (4)   SLURM_TEST_CPUS (8, per node)
#   SLURM_TEST_MINJOBAGE (300)  seconds a finished job stays visible to squeue -t all / scontrol show job
#   SLURM_TEST_UTS=1     (root) every node has its own hostname n1, n2, ...
#   SLURM_TEST_EXTRA     further lines of slurm.conf
#   SLURM_TEST_ACCT=1    also MariaDB + slurmdbd, for a working sacct (at install and at start)
set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin
D=${SLURM_TEST_DIR:-/tmp/flow-slurm-$(id -u)}
N=${SLURM_TEST_NODES:-4}; CPUS=${SLURM_TEST_CPUS:-8}; AGE=${SLURM_TEST_MINJOBAGE:-300}
UTS=${SLURM_TEST_UTS:-0}; ACCT=${SLURM_TEST_ACCT:-0}
PORT=${SLURM_TEST_PORT:-17810}   # ctld PORT, slurmd PORT+1.., slurmdbd PORT+90, mysql PORT+91, srun PORT+100..+180
export SLURM_CONF=$D/slurm.conf
ME=$(id -un); HOST=$(uname -n); HOST=${HOST%%.*}

install() {
  export DEBIAN_FRONTEND=noninteractive
  # --no-install-recommends keeps out slurm-wlm-plugins (mysql, ipmi, rrd, ...); 9 s
  dpkg -s slurm-wlm munge >/dev/null 2>&1 || apt-get -o DPkg::Lock::Timeout=300 install -y --no-install-recommends slurm-wlm munge
  [ "$ACCT" != 1 ] || dpkg -s slurmdbd mariadb-server slurm-wlm-mysql-plugin >/dev/null 2>&1 ||
    apt-get -o DPkg::Lock::Timeout=300 install -y --no-install-recommends mariadb-server slurmdbd slurm-wlm-mysql-plugin   # 16 s
}

# a daemon whose parent (pid 1) reaps late stays a zombie for a while: that counts as gone
live() { grep -qs '^State:.[^Z]' "/proc/$1/status"; }
alive() { [ -s "$1" ] && live "$(cat "$1")"; }
wait_for() { local t=$((SECONDS+20)); until "$@" >/dev/null 2>&1; do [ $SECONDS -lt $t ] || return 1; sleep 0.1; done; }

conf() {
  mkdir -p "$D"/{state,log,spool,munge}; chmod 755 "$D" "$D"/munge; chmod 711 "$D"/spool
  local i NH=$HOST; [ "$UTS" != 1 ] || NH="n[1-$N]"
  for i in $(seq "$N"); do mkdir -p "$D/spool/n$i"; done    # slurmd wants its spool dir to exist beforehand
  [ -s "$D/munge/key" ] || { (umask 077; head -c 1024 /dev/urandom >"$D/munge/key"); }
  local acct='accounting_storage/none' gather='jobacct_gather/none'
  [ "$ACCT" != 1 ] || { acct='accounting_storage/slurmdbd'; gather='jobacct_gather/linux'; }
  cat >"$SLURM_CONF" <<E
ClusterName=flowtest
SlurmctldHost=$HOST(127.0.0.1)
SlurmctldPort=$PORT
SrunPortRange=$((PORT+100))-$((PORT+180))
AuthType=auth/munge
AuthInfo=socket=$D/munge/socket
CredType=cred/munge
SlurmUser=$ME
SlurmdUser=$ME
StateSaveLocation=$D/state
SlurmdSpoolDir=$D/spool/%n
SlurmctldPidFile=$D/slurmctld.pid
SlurmdPidFile=$D/slurmd.%n.pid
SlurmctldLogFile=$D/log/slurmctld.log
SlurmdLogFile=$D/log/slurmd.%n.log
# nothing that needs cgroups or real hardware
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=$gather
SwitchType=switch/none
MpiDefault=none
PropagateResourceLimits=NONE
# finished jobs stay visible MinJobAge seconds, and for good in jobcomp.txt (sacct -c reads it)
AccountingStorageType=$acct
AccountingStorageHost=127.0.0.1
AccountingStoragePort=$((PORT+90))
# not a password: the munge socket for talking to slurmdbd; without it /run/munge/munge.socket.2 is tried for minutes
AccountingStoragePass=$D/munge/socket
JobCompType=jobcomp/filetxt
JobCompLoc=$D/jobcomp.txt
MinJobAge=$AGE
# faked CPUs: the nodes claim CPUS each whatever the machine has
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=10
# quick reactions: submit-to-run at most 1 s (3 s with the defaults)
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,batch_sched_delay=0,bf_interval=1,sched_min_interval=0
KillWait=2
SlurmdTimeout=10
SlurmctldTimeout=10
ReturnToService=2
TreeWidth=$((N+1))
NodeName=n[1-$N] NodeHostname=$NH NodeAddr=127.0.0.1 Port=[$((PORT+1))-$((PORT+N))] CPUs=$CPUS RealMemory=4000 State=UNKNOWN
PartitionName=debug Nodes=ALL Default=YES MaxTime=INFINITE State=UP
PartitionName=short Nodes=n1 MaxTime=00:01:00 State=UP
${SLURM_TEST_EXTRA:-}
E
  rm -f "$D/slurmdbd.conf"                                  # must be 0600 and beside slurm.conf
  (umask 077; cat >"$D/slurmdbd.conf" <<E
AuthType=auth/munge
AuthInfo=socket=$D/munge/socket
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort=$((PORT+90))
SlurmUser=$ME
PidFile=$D/slurmdbd.pid
LogFile=$D/log/slurmdbd.log
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort=$((PORT+91))
StorageUser=slurm
StoragePass=slurm
StorageLoc=slurm_acct
E
  )
}

db() {    # accounting: MariaDB on loopback with its data in $D/mysql, slurmdbd, and the cluster registered
  if [ ! -d "$D/mysql/mysql" ]; then
    mkdir -p "$D/mysql"
    mariadb-install-db --no-defaults --user="$ME" --datadir="$D/mysql" --skip-test-db >"$D/log/mysql-install.log" 2>&1
  fi
  printf '%s\n' "CREATE DATABASE IF NOT EXISTS slurm_acct;" \
    "CREATE USER IF NOT EXISTS slurm@'127.0.0.1' IDENTIFIED BY 'slurm';" \
    "GRANT ALL ON slurm_acct.* TO slurm@'127.0.0.1';" >"$D/mysql-init.sql"
  if ! alive "$D/mysql.pid"; then      # not `alive || mariadbd &`: that leaves a shell holding the caller's pipe open
    mariadbd --no-defaults --user="$ME" --datadir="$D/mysql" --socket="$D/mysql.sock" --pid-file="$D/mysql.pid" \
      --bind-address=127.0.0.1 --port=$((PORT+91)) --init-file="$D/mysql-init.sql" --skip-name-resolve \
      --innodb-buffer-pool-size=128M --innodb-lock-wait-timeout=900 >"$D/log/mysql.log" 2>&1 </dev/null &
  fi
  wait_for mariadb-admin --no-defaults -h127.0.0.1 -P$((PORT+91)) -uslurm -pslurm ping
  alive "$D/slurmdbd.pid" || slurmdbd
  wait_for timeout 5 sacctmgr -n list cluster
  sacctmgr -n list cluster format=cluster | grep -qw flowtest || sacctmgr -i add cluster flowtest >/dev/null
}

start() {
  conf
  alive "$D/munge/pid" || munged --socket="$D/munge/socket" --key-file="$D/munge/key" --pid-file="$D/munge/pid" \
      --log-file="$D/munge/log" --seed-file="$D/munge/seed" --force 2>/dev/null
  wait_for munge -S "$D/munge/socket" -n
  [ "$ACCT" != 1 ] || db
  alive "$D/slurmctld.pid" || slurmctld
  wait_for timeout 5 scontrol ping
  local i
  for i in $(seq "$N"); do
    alive "$D/slurmd.n$i.pid" && continue
    if [ "$UTS" = 1 ]; then unshare --uts sh -c "hostname n$i; slurmd -N n$i"; else slurmd -N "n$i"; fi
  done
  ready() { [ "$(sinfo -h -N -p debug -t idle,alloc,mix -o %N | wc -l)" = "$N" ]; }
  wait_for ready
  sinfo -N >&2
  echo "export SLURM_CONF=$SLURM_CONF"
}

stop() {
  local f p
  if alive "$D/slurmctld.pid"; then          # else the slurmstepd of running jobs outlive the daemons
    squeue -h -o %A | xargs -r scancel || true
    empty() { [ -z "$(squeue -h -t R,CG)" ]; }
    wait_for empty || true
  fi
  for f in "$D"/slurmd.n*.pid "$D/slurmctld.pid" "$D/slurmdbd.pid" "$D/mysql.pid" "$D/munge/pid"; do
    alive "$f" || continue
    p=$(cat "$f"); kill "$p"
    gone() { ! live "$p"; }
    wait_for gone || kill -9 "$p"
    rm -f "$f"
  done
}

case ${1:-} in
  install) install;; start|stop) "$1";;
  clean) rm -rf "$D";;
  env) echo "export SLURM_CONF=$SLURM_CONF";;
  *) sed -n '2,15p' "$0"; exit 2;;
esac
