#!/bin/bash
# The jobs of a LocalProvider on one host, whoever asks: the process that started them, another one after a crash, or
# somebody through ssh. A job is a set of files with one stem in a directory, and the stem is the job's id:
#   .sh script   .pid "<pid> <birth> <started>"   .out .err output   .exit "<code> <ended>"   .secrets/ secret files
#   .cancelled, .timeout: that was asked for
# Usage: bash jobs.sh DIRECTORY start STEM WALLTIME | status STEM... | cancel GRACE STEM... | find TAG_PREFIX | clear STEM...
set -u
HERE=$PWD
SELF=$(cd "$(dirname "$0")" && pwd)/${0##*/}
cd -- "$1" || exit 3
DIR=$PWD
VERB=$2
shift 2

BOOT=
if [ -r /proc/sys/kernel/random/boot_id ]; then read -r BOOT </proc/sys/kernel/random/boot_id; fi

# stat_of PID: what /proc says after the command's name, in STAT: state ppid pgrp session ...
stat_of() {
  local line
  STAT=()
  { read -r line <"/proc/$1/stat"; } 2>/dev/null || return 1
  read -r -a STAT <<<"${line##*) }"
  [ "${#STAT[@]}" -gt 19 ]
}

# birth_of PID: in BIRTH, what tells the process from a later one with the same pid; fails if it is gone or a zombie
birth_of() {
  BIRTH=
  if [ -n "$BOOT" ]; then
    stat_of "$1" || return 1
    case ${STAT[0]} in Z | X) return 1 ;; esac
    BIRTH=$BOOT.${STAT[19]}
  else
    BIRTH=$(ps -o lstart= -p "$1" | tr -s ' ' _)
    [ -n "$BIRTH" ]
  fi
}

# leader_of STEM: in PID, the job's leading process if it is alive and really that one
leader_of() {
  local birth rest
  PID=
  { read -r PID birth rest <"$1.pid"; } 2>/dev/null || return 1
  birth_of "$PID" && [ "$BIRTH" = "$birth" ]
}

# members_of GROUP: in MEMBERS, its living processes but this one
members_of() {
  local entry pid
  MEMBERS=()
  if [ -z "$BOOT" ]; then
    for pid in $(pgrep -g "$1"); do [ "$pid" = "$$" ] || MEMBERS+=("$pid"); done
    return
  fi
  for entry in /proc/[0-9]*; do
    pid=${entry#/proc/}
    stat_of "$pid" || continue
    if [ "${STAT[2]}" = "$1" ] && [ "$pid" != "$$" ] && [ "${STAT[0]}" != Z ]; then MEMBERS+=("$pid"); fi
  done
}

# strays_of STEM: in MEMBERS, processes that carry the job's id in their environment, whatever their group
strays_of() {
  local file pid
  MEMBERS=()
  [ -n "$BOOT" ] || return 0
  # shellcheck disable=SC2013  # paths of /proc are words
  for file in $(grep -l -a -z -x -F "FLOW_JOB_ID=$1" /proc/[0-9]*/environ 2>/dev/null); do
    pid=${file#/proc/}
    pid=${pid%/environ}
    stat_of "$pid" || continue
    if [ "$pid" != "$$" ] && [ "${STAT[0]}" != Z ]; then MEMBERS+=("$pid"); fi
  done
}

now() { date +%s; }

put() { # put FILE TEXT: whole or not at all, and closed to other writers: who changes a record decides what is killed
  ( umask go-w; printf '%s\n' "$2" >"$1.$$.tmp" ) && mv -f "$1.$$.tmp" "$1"
}

record() { birth_of "$2" && put "$1.pid" "$2 $BIRTH $(now)"; }

start() { # start STEM WALLTIME
  local group=
  ( umask go-w; : >"$1.out"; : >"$1.err" )
  if command -v setsid >/dev/null 2>&1; then group=setsid; else set -m; fi
  ( cd "$HERE" && exec $group bash "$SELF" "$DIR" run "$1" "$2" "$HERE" ) </dev/null >>"$1.out" 2>>"$1.err" &
  local leader=$!
  set +m
  # it writes the record itself, as its first act: there is no job without one
  local turns=0
  until [ -s "$1.pid" ] || ! kill -0 "$leader" 2>/dev/null || [ "$turns" -ge 1000 ]; do
    turns=$((turns + 1))
    sleep 0.01
  done
  if [ -s "$1.pid" ]; then
    echo "started $1 $(cat "$1.pid")"
  else
    kill -KILL "$leader" 2>/dev/null
    echo "the job did not start: $(cat "$1.err")" >&2
    exit 4
  fi
}

run() { # run STEM WALLTIME HOME: lead the job's process group until its script has ended and nothing of it is left
  record "$1" $$ || exit 5
  # ignored here, at its default below: a `wait` that a trap interrupts may lose the exit code
  trap '' TERM HUP INT
  export FLOW_JOB_ID=$1
  ( trap - TERM HUP INT; cd "$3" && exec bash "$DIR/$1.sh" ) &
  local child=$! guard="" code turns
  if [ "$2" -gt 0 ]; then
    (
      trap - TERM
      sleep "$2" &
      trap 'kill $!; exit' TERM
      wait $!
      trap '' TERM
      ( umask go-w; : >"$1.timeout" )
      kill -TERM -- "-$$"
      sleep 5
      kill -KILL -- "-$$"
    ) >/dev/null 2>&1 &
    guard=$!
  fi
  wait "$child"
  code=$?
  put "$1.exit" "$code $(now)"
  rm -rf "$1.secrets"
  if [ -n "$guard" ]; then kill -TERM "$guard" 2>/dev/null; fi
  members_of $$
  [ "${#MEMBERS[@]}" -gt 0 ] || exit 0
  kill -TERM -- "-$$"
  for ((turns = 0; turns < 100; turns++)); do
    members_of $$
    [ "${#MEMBERS[@]}" -gt 0 ] || exit 0
    sleep 0.05
  done
  kill -KILL -- "-$$"
}

status() { # a line each: stem|alive|code|ended|cancelled|timeout|started
  local stem alive code ended cancelled timeout pid birth started
  for stem in "$@"; do
    alive=no code="" ended="" cancelled=no timeout=no started=""
    if ! [ -e "$stem.sh" ]; then
      echo "$stem|unknown|||no|no|"
      continue
    fi
    # the order matters: a job that ends between the two looks has left its exit code
    if leader_of "$stem"; then alive=yes; fi
    { read -r pid birth started <"$stem.pid"; } 2>/dev/null
    { read -r code ended <"$stem.exit"; } 2>/dev/null
    if [ -e "$stem.cancelled" ]; then cancelled=yes; fi
    if [ -e "$stem.timeout" ]; then timeout=yes; fi
    echo "$stem|$alive|$code|$ended|$cancelled|$timeout|$started"
  done
}

cancel() { # cancel GRACE STEM...: TERM to each group, KILL to what is left after GRACE seconds; a line each: stem yes|no
  local grace=$1 stem left end
  shift
  for stem in "$@"; do
    if [ -e "$stem.sh" ] && ! [ -e "$stem.exit" ]; then ( umask go-w; : >"$stem.cancelled" ); fi
    if leader_of "$stem"; then kill -TERM -- "-$PID" 2>/dev/null; fi
  done
  end=$((SECONDS + grace))
  while :; do
    left=
    for stem in "$@"; do if leader_of "$stem"; then left=1; fi; done
    [ -n "$left" ] && [ "$SECONDS" -lt "$end" ] || break
    sleep 0.02
  done
  for stem in "$@"; do
    if leader_of "$stem"; then kill -KILL -- "-$PID" 2>/dev/null; fi
    strays_of "$stem"
    if [ "${#MEMBERS[@]}" -gt 0 ]; then kill -KILL "${MEMBERS[@]}" 2>/dev/null; fi
    rm -rf "$stem.secrets"
    echo "$stem yes"
  done
}

# starting STEM: whether a process, of a submitter that may be dead, is about to start the job
starting() {
  # the brackets: so that the one who looks does not find himself
  local pattern="[${1:0:1}]${1:1}"
  if [ -z "$BOOT" ]; then pgrep -f -- "$pattern" >/dev/null 2>&1; return; fi
  grep -q -s -a -e "$pattern" /proc/[0-9]*/cmdline
}

find_() { # find TAG_PREFIX: the stems NAME.TAG.UNIQUE of that tag; waits for those that are being started
  local file stem tag turns
  for file in *.*.*.sh; do
    stem=${file%.sh}
    tag=${stem%.*}
    tag=${tag##*.}
    case $tag in "$1"*) ;; *) continue ;; esac
    # as long as start waits, and a second
    for ((turns = 0; turns < 110; turns++)); do
      if [ -e "$stem.pid" ] || ! [ -e "$file" ] || ! starting "$stem"; then break; fi
      sleep 0.1
    done
  done
  for file in *.pid; do
    [ -e "$file" ] || continue
    stem=${file%.pid}
    tag=${stem%.*}
    tag=${tag##*.}
    case $tag in "$1"*) echo "$stem" ;; esac
  done
}

# forget STEM: remove the files of a job, unless it lives
forget() {
  if leader_of "$1"; then return; fi
  rm -f -- "$1.sh" "$1.out" "$1.err" "$1.pid" "$1.exit" "$1.cancelled" "$1.timeout"
  rm -rf -- "$1.secrets"
}

clear() { # clear STEM...: forget these jobs, and what is a week old; says "empty" if that was the last use of the directory
  local stem file
  for stem in "$@"; do forget "$stem"; done
  find . -maxdepth 1 -name '*.*.*.sh' -mtime +7 2>/dev/null | while IFS= read -r file; do
    file=${file#./}
    forget "${file%.sh}"
  done
  find . -maxdepth 1 -name 'flow-jobs-*.sh' -mtime +7 ! -name "${SELF##*/}" -exec rm -f {} + 2>/dev/null
  # sockets of forwards whose server has ended; those of other hosts are not in this one's list
  for file in ".forward-$(uname -n | cut -c1-20)-"*.sock; do
    if [ -S "$file" ] && ! grep -q -F -- "$DIR/$file" /proc/net/unix 2>/dev/null; then rm -f -- "$file"; fi
  done
  for file in *.*.*.sh *.pid; do if [ -e "$file" ]; then return; fi; done
  rm -f -- "$SELF"
  rmdir -- "$DIR" 2>/dev/null
  echo empty
}

case $VERB in
  start | status | cancel | run | clear) "$VERB" "$@" ;;
  find) find_ "$@" ;;
  *) exit 2 ;;
esac
