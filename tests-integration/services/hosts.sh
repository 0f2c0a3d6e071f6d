#!/bin/bash
# Two hosts with networks of their own (netns.sh) and an OpenSSH server on each, which takes one key.
#   hosts.sh install     apt packages (root, once)
#   hosts.sh start       the hosts, named flowhost1 and flowhost2 (1 s); prints the variables their clients need
#   hosts.sh cut 2       cuts the way to a host: connections stall       hosts.sh heal 2   mends it
#   hosts.sh stop        ends what runs on the hosts and removes them    hosts.sh clean    removes the directory
# Root only: the hosts' user is the caller, and the file system is shared. HOSTS_TEST_HIDE=DIR: but for that directory,
# which is an empty one of its own on each host, and but for files in memory (/dev/shm).
set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin
HERE=$(cd "$(dirname "$0")" && pwd); D=${HOSTS_TEST_DIR:-/tmp/flow-hosts-$(id -u)}; NET=$D/net

install() {
  "$HERE/netns.sh" install
  export DEBIAN_FRONTEND=noninteractive
  dpkg -s openssh-server >/dev/null 2>&1 ||
    apt-get -o DPkg::Lock::Timeout=300 install -y --no-install-recommends openssh-server
}
live() { grep -qs '^State:.[^Z]' "/proc/$1/status"; }
wait_for() { local t=$((SECONDS+20)); until "$@" >/dev/null 2>&1; do [ $SECONDS -lt $t ] || return 1; sleep 0.05; done; }
on() {
  local h=$1 apart=''; shift
  [ -z "${HOSTS_TEST_HIDE:-}" ] || apart="for d in '$HOSTS_TEST_HIDE' /dev/shm; do mount -t tmpfs -o mode=1777 none \"\$d\"; done;"
  "$HERE/netns.sh" exec "$NET" "$h" unshare --uts --mount sh -c "hostname \"\$0\"; $apart exec \"\$@\"" "flowhost$h" "$@"
}

serve() {   # an sshd on host $1, at address $2
  cat >"$D/sshd_config$1" <<E
ListenAddress $2:22
HostKey $D/host_key
PidFile $D/sshd$1.pid
AuthorizedKeysFile $D/id.pub
AuthenticationMethods publickey
StrictModes no
UsePAM no
AllowUsers $(id -un)
Subsystem sftp internal-sftp
MaxStartups 100
MaxSessions 100
UseDNS no
PrintMotd no
E
  on "$1" /usr/sbin/sshd -f "$D/sshd_config$1" -E "$D/sshd$1.log"
  wait_for ssh -F none -o BatchMode=yes -o UserKnownHostsFile="$D/known_hosts" -i "$D/id" "$2" true
}

start() {
  [ "$(id -u)" = 0 ] || { echo "hosts with networks of their own need root" >&2; exit 1; }
  local here first second
  stop
  mkdir -p "$D" /run/sshd                             # privilege separation directory, made by systemd elsewhere
  [ -s "$D/host_key" ] || ssh-keygen -q -t ed25519 -N '' -f "$D/host_key"
  [ -s "$D/id" ] || ssh-keygen -q -t ed25519 -N '' -C flow -f "$D/id"
  read -r here first second < <("$HERE/netns.sh" start "$NET" 2)
  printf '%s\n' "$first" "$second" | sed "s#\$# $(cut -d' ' -f1,2 "$D/host_key.pub")#" >"$D/known_hosts"
  serve 1 "$first"
  serve 2 "$second"
  echo "export HOSTS_TEST_HERE=$here HOSTS_TEST_FIRST=$first HOSTS_TEST_SECOND=$second HOSTS_TEST_USER=$(id -un)" \
    "HOSTS_TEST_KEY=$D/id HOSTS_TEST_KNOWN_HOSTS=$D/known_hosts"
}

stop() {
  local id h pids=() p
  [ -s "$NET/id" ] || return 0
  id=$(cat "$NET/id")
  for h in 1 2; do mapfile -t -O ${#pids[@]} pids < <(ip netns pids "flow-$id-$h" 2>/dev/null); done
  for p in "${pids[@]}"; do kill "$p" 2>/dev/null || true; done
  none() { for p in "${pids[@]}"; do ! live "$p" || return 1; done; }
  wait_for none || for p in "${pids[@]}"; do kill -9 "$p" 2>/dev/null || true; done
  "$HERE/netns.sh" stop "$NET"
}
case ${1:-} in
  install) install ;;
  start | stop) "$1" ;;
  cut | heal) "$HERE/netns.sh" "$1" "$NET" "$2" ;;
  clean) rm -rf "$D" ;;
  *) sed -n '2,8p' "$0"; exit 2 ;;
esac
