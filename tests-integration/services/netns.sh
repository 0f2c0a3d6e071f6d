#!/bin/bash
# "Hosts" with addresses of their own on one machine: network namespaces on a bridge, an sshd in each, links one can cut.
#   netns.sh install     apt packages (root, once)
#   netns.sh start       host 1 = this machine (10.200.1.1 on the bridge), host 2 10.200.1.2, host 3 10.200.1.3 (0.5 s)
#   netns.sh stop        ends what runs on the hosts, removes namespaces, links and bridge
#   netns.sh exec 2 CMD  runs CMD on host 2 (own network, own hostname "flowhost2", own /etc/hosts)
#   netns.sh cut 2       link down: host 2 sees "no carrier", the others hear nothing; TCP connections stall
#   netns.sh heal 2      link up again
#   netns.sh mute 2 | unmute 2          the same silence with every link still "up" (the bridge port stops forwarding)
#   netns.sh rate 2 1mbit | rate 2 none   slow link towards the host
#   netns.sh clean | env
# Root only. Keys only; the user is the caller. The file system is shared. No packet leaves the machine: the bridge has
# no port but these namespaces, which have no default route.
# Knobs: NETNS_TEST_DIR, NETNS_TEST_NET (10.200.1), NETNS_TEST_BRIDGE (brflow), NETNS_TEST_HOSTS ("2 3")
set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin
D=${NETNS_TEST_DIR:-/tmp/flow-netns-$(id -u)}
NET=${NETNS_TEST_NET:-10.200.1}; BR=${NETNS_TEST_BRIDGE:-brflow}; HOSTS=${NETNS_TEST_HOSTS:-"2 3"}

install() {
  export DEBIAN_FRONTEND=noninteractive
  dpkg -s openssh-server iproute2 >/dev/null 2>&1 ||
    apt-get -o DPkg::Lock::Timeout=300 install -y --no-install-recommends openssh-server iproute2
}
live() { grep -qs '^State:.[^Z]' "/proc/$1/status"; }
alive() { [ -s "$1" ] && live "$(cat "$1")"; }
wait_for() { local t=$((SECONDS+20)); until "$@" >/dev/null 2>&1; do [ $SECONDS -lt $t ] || return 1; sleep 0.05; done; }
ns() { echo "flowhost$1"; }
exists() { ip netns list | grep -qw "$(ns "$1")"; }
# `ip netns exec` binds /etc/netns/NAME/* over /etc/*
in_ns() { local h=$1; shift; ip netns exec "$(ns "$h")" unshare --uts sh -c 'hostname "$0"; exec "$@"' "$(ns "$h")" "$@"; }

keys() {
  local h
  mkdir -p "$D"; chmod 755 "$D"
  [ -s "$D/host_key" ] || ssh-keygen -q -t ed25519 -N '' -f "$D/host_key"
  [ -s "$D/id" ] || ssh-keygen -q -t ed25519 -N '' -C flow -f "$D/id"
  cp "$D/id.pub" "$D/authorized_keys"
  for h in $HOSTS; do echo "$NET.$h $(cut -d' ' -f1,2 "$D/host_key.pub")"; done >"$D/known_hosts"
}

host() {   # the network of one host, once
  local h=$1 k
  mkdir -p "/etc/netns/$(ns "$h")"
  { echo "127.0.0.1 localhost"; echo "$NET.1 flowhost1"; for k in $HOSTS; do echo "$NET.$k $(ns "$k")"; done; } \
    >"/etc/netns/$(ns "$h")/hosts"
  ! exists "$h" || return 0
  ip netns add "$(ns "$h")"
  ip link add "vflow$h" type veth peer name eth0 netns "$(ns "$h")"
  ip link set "vflow$h" master "$BR" up
  ip -n "$(ns "$h")" addr add "$NET.$h/24" dev eth0
  ip -n "$(ns "$h")" link set eth0 up
  ip -n "$(ns "$h")" link set lo up
}

sshd_on() {
  local h=$1
  cat >"$D/sshd_config$h" <<E
ListenAddress $NET.$h:22
HostKey $D/host_key
PidFile $D/sshd$h.pid
AuthorizedKeysFile $D/authorized_keys
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
  alive "$D/sshd$h.pid" || in_ns "$h" /usr/sbin/sshd -f "$D/sshd_config$h" -E "$D/sshd$h.log"
  wait_for ssh -F none -o BatchMode=yes -o UserKnownHostsFile="$D/known_hosts" -i "$D/id" "$NET.$h" true
}

start() {
  [ "$(id -u)" = 0 ] || { echo "network namespaces need root" >&2; exit 1; }
  local h
  keys
  mkdir -p /run/sshd                                  # privilege separation directory, made by systemd elsewhere
  ip link show "$BR" >/dev/null 2>&1 || { ip link add "$BR" type bridge; ip addr add "$NET.1/24" dev "$BR"; ip link set "$BR" up; }
  for h in $HOSTS; do host "$h"; done
  for h in $HOSTS; do sshd_on "$h"; done
  env_
}

stop() {
  local h p left
  for h in $HOSTS; do
    exists "$h" || continue
    left=$(ip netns pids "$(ns "$h")")                # what runs in this namespace and nothing else, its sshd too
    for p in $left; do kill "$p" 2>/dev/null || true; done
    none() { [ -z "$(ip netns pids "$(ns "$h")")" ]; }
    wait_for none || for p in $(ip netns pids "$(ns "$h")"); do kill -9 "$p" 2>/dev/null || true; done
    ip link del "vflow$h" 2>/dev/null || true
    ip netns del "$(ns "$h")"
    rm -rf "/etc/netns/$(ns "$h")" "$D/sshd$h.pid"
  done
  ip link del "$BR" 2>/dev/null || true
}
env_() { echo "export NETNS_TEST_ADDRESS=$NET.1 NETNS_TEST_FIRST=$NET.2 NETNS_TEST_SECOND=$NET.3 NETNS_TEST_USER=$(id -un) NETNS_TEST_KEY=$D/id NETNS_TEST_KNOWN_HOSTS=$D/known_hosts"; }
case ${1:-} in
  install) install ;;
  start | stop) "$1" ;;
  env) env_ ;;
  clean) rm -rf "$D" ;;
  exec) shift; in_ns "$@" ;;
  cut) ip link set "vflow$2" down ;;
  heal) ip link set "vflow$2" up ;;
  mute) bridge link set dev "vflow$2" state 0 ;;
  unmute) bridge link set dev "vflow$2" state 3 ;;
  rate) tc qdisc del dev "vflow$2" root 2>/dev/null || true
        [ "$3" = none ] || tc qdisc add dev "vflow$2" root tbf rate "$3" burst 32kbit latency 400ms ;;
  *) sed -n '2,14p' "$0"; exit 2 ;;
esac
