#!/bin/bash
# Real Grid Engine (Son of Grid Engine 8.1.9, Debian 12), one host with many slots, no systemd.
#   sge.sh install   apt packages (root, once)        sge.sh start   private cell + qmaster + execd (about 3 s)
#   sge.sh stop      deletes the jobs, ends both daemons by pid file       sge.sh clean   removes the directory
#   sge.sh env       prints the exports a client needs (SGE_ROOT, SGE_CELL, ports, PATH)
# Nothing under /var/lib/gridengine is changed: own SGE_ROOT, classic (text file) spooling.
# Works as root (jobs of any user) AND as a plain user (only that user's jobs).
# Knobs: SGE_TEST_DIR, SGE_TEST_PORT (17444, and the next), SGE_TEST_SLOTS (16)
set -euo pipefail
D=${SGE_TEST_DIR:-/tmp/flow-sge-$(id -u)}; P=${SGE_TEST_PORT:-17444}; SLOTS=${SGE_TEST_SLOTS:-16}
export SGE_ROOT=$D/root SGE_CELL=default SGE_QMASTER_PORT=$P SGE_EXECD_PORT=$((P+1))
# the real binaries: beside /usr/bin/qsub, which is a wrapper and belongs to slurm-wlm-torque if that is installed
BIN=/usr/lib/gridengine; export PATH=$BIN:$PATH
C=$SGE_ROOT/default/common; HOST=$(uname -n); ME=$(id -un)

install() {
  export DEBIAN_FRONTEND=noninteractive
  dpkg -s gridengine-master gridengine-exec gridengine-client >/dev/null 2>&1 && return
  # msmtp-mta: a sendmail that is no daemon; without it the dependency on mailx brings the exim mail server. 20 s
  printf 'gridengine-common shared/%s\n' 'gridengineconfig boolean true' 'gridenginecell string default' \
    "gridenginemaster string $HOST" | debconf-set-selections
  apt-get -o DPkg::Lock::Timeout=300 install -y --no-install-recommends msmtp-mta gridengine-master gridengine-exec gridengine-client
}

live() { grep -qs '^State:.[^Z]' "/proc/$1/status"; }
alive() { [ -s "$1" ] && live "$(cat "$1")"; }
wait_for() { local t=$((SECONDS+20)); until "$@" >/dev/null 2>&1; do [ $SECONDS -lt $t ] || return 1; sleep 0.1; done; }
execd_pid() { ls "$D"/spool/execd/*/execd.pid 2>/dev/null | head -n 1; }

cell() {   # create the cell, once
  [ ! -s "$C/bootstrap" ] || return 0
  mkdir -p "$C" "$D"/spool/{qmaster,execd}; chmod 755 "$D"
  local x; for x in bin lib util utilbin; do ln -sfn "/var/lib/gridengine/$x" "$SGE_ROOT/$x"; done
  echo "$HOST" >"$C/act_qmaster"
  echo "$HOST localhost" >"$C/host_aliases"     # 127.0.0.1 resolves back to "localhost"; both are this host
  local admin=none; [ "$ME" = root ] || admin=$ME   # else qmaster denies the execd of a plain user
  cat >"$C/bootstrap" <<E
admin_user              $admin
default_domain          none
ignore_fqdn             true
spooling_method         classic
spooling_lib            libspoolc
spooling_params         $C;$D/spool/qmaster
binary_path             /usr/sbin
qmaster_spool_dir       $D/spool/qmaster
security_mode           none
listener_threads        2
worker_threads          2
scheduler_threads       1
E
  spoolinit classic libspoolc "$C;$D/spool/qmaster" init
  sed "s#/var/spool/gridengine/execd#$D/spool/execd#; s#^min_[ug]id.*##; s#^mailer .*#mailer /bin/true#
       s#^load_report_time.*#load_report_time 0:0:2#; s#^max_unheard.*#max_unheard 0:0:20#
       s#^reporting_params.*#reporting_params accounting=true reporting=false flush_time=0:0:1 accounting_flush_time=0:0:0 joblog=false sharelog=0:0:0#
       s#^execd_params.*#execd_params ENABLE_ADDGRP_KILL=TRUE#; s#^administrator_mail.*#administrator_mail none#" \
    /usr/share/gridengine/default-configuration >"$D/global.conf"
  printf 'min_uid 0\nmin_gid 0\n' >>"$D/global.conf"                       # 1000 by default: refuses root's jobs
  spooldefaults configuration "$D/global.conf"
  spooldefaults complexes /usr/share/gridengine/util/resources/centry
  spooldefaults usersets /usr/share/gridengine/util/resources/usersets
  spooldefaults managers "$ME"
}

queue() {  # host, parallel environments, queue and a 1 s scheduler, once
  ! qconf -sq all.q >/dev/null 2>&1 || return 0
  qconf -as "$HOST"
  qconf -ssconf | sed 's/^schedule_interval .*/schedule_interval 0:0:1/; s/^flush_\(submit\|finish\)_sec .*/flush_\1_sec 1/
    s/^job_load_adjustments .*/job_load_adjustments NONE/' >"$D/sched.conf"; qconf -Msconf "$D/sched.conf"
  printf 'group_name @allhosts\nhostlist %s\n' "$HOST" >"$D/hgrp"; qconf -Ahgrp "$D/hgrp"
  local pe rule
  for pe in 'smp $pe_slots' 'mpi $fill_up'; do
    rule=${pe#* }; pe=${pe% *}
    printf '%s\n' "pe_name $pe" 'slots 9999' 'user_lists NONE' 'xuser_lists NONE' 'start_proc_args NONE' \
      'stop_proc_args NONE' "allocation_rule $rule" 'control_slaves TRUE' 'job_is_first_task FALSE' \
      'urgency_slots min' 'accounting_summary FALSE' 'qsort_args NONE' >"$D/pe"
    qconf -Ap "$D/pe"
  done
  { printf '%s\n' 'qname all.q' 'hostlist @allhosts' 'seq_no 0' 'load_thresholds NONE' 'suspend_thresholds NONE' \
      'nsuspend 1' 'suspend_interval 00:05:00' 'priority 0' 'min_cpu_interval 00:05:00' 'processors UNDEFINED' \
      'qtype BATCH INTERACTIVE' 'ckpt_list NONE' 'pe_list smp mpi' 'rerun FALSE' "slots $SLOTS" 'tmpdir /tmp' \
      'shell /bin/sh' 'prolog NONE' 'epilog NONE' 'shell_start_mode unix_behavior' 'starter_method NONE' \
      'suspend_method NONE' 'resume_method NONE' 'terminate_method NONE' 'notify 00:00:60' 'owner_list NONE' \
      'user_lists NONE' 'xuser_lists NONE' 'subordinate_list NONE' 'complex_values NONE' 'projects NONE' \
      'xprojects NONE' 'calendar NONE' 'initial_state default'
    printf 's_%s INFINITY\n' rt cpu fsize data stack core rss vmem
    printf 'h_%s INFINITY\n' rt cpu fsize data stack core rss vmem; } >"$D/queue"
  qconf -Aq "$D/queue"                              # load_thresholds NONE: a busy machine still runs jobs
}

start() {
  cell >&2
  alive "$D/spool/qmaster/qmaster.pid" || sge_qmaster
  wait_for timeout 5 qconf -sh
  queue >&2
  alive "$(execd_pid)" || { sge_execd; has_pid() { alive "$(execd_pid)"; }; wait_for has_pid; }
  up() { qstat -f | awk '/^all.q@/ && $4 != "-NA-" && $5 ~ /^lx/ && $6 == "" {ok=1} END {exit !ok}'; }  # takes jobs
  wait_for up
  qstat -f >&2
  env_
}

stop() {
  local f p
  if alive "$D/spool/qmaster/qmaster.pid"; then
    qdel -u '*' >/dev/null 2>&1 || true
    none() { [ -z "$(qstat -u '*')" ]; }; wait_for none || true
  fi
  for f in "$(execd_pid)" "$D/spool/qmaster/qmaster.pid"; do
    alive "$f" || continue
    p=$(cat "$f"); kill "$p"; gone() { ! live "$p"; }; wait_for gone || kill -9 "$p"; rm -f "$f"
  done
}

env_() { echo "export SGE_ROOT=$SGE_ROOT SGE_CELL=default SGE_QMASTER_PORT=$P SGE_EXECD_PORT=$((P+1)) PATH=$BIN:\$PATH"; }
case ${1:-} in install) install;; start|stop) "$1";; clean) rm -rf "$D";; env) env_;; *) sed -n '2,9p' "$0"; exit 2;; esac
