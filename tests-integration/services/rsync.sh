#!/bin/bash
# A real sshd with rsync behind it, as the "submit side" of the rsync tests; logs in the user who starts it, by key.
#   rsync.sh install      apt packages (root, once)
#   rsync.sh start DIR    key, host key, known_hosts, sshd; prints "ADDRESS PORT KEY KNOWN_HOSTS USER"
#   rsync.sh stop DIR     ends the sshd by its pid file and removes its network namespace
# As root, the sshd lives in a network namespace of its own (flow-rsync-PORT) behind a pair of virtual cables, so that
# the two sides are two hosts with a network between them; as a plain user it listens on loopback.
set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin

install() {
  export DEBIAN_FRONTEND=noninteractive
  command -v rsync sshd ip >/dev/null && return
  apt-get -o DPkg::Lock::Timeout=300 install -y --no-install-recommends openssh-server rsync iproute2
}

start() {
  local d=$1 port addr=127.0.0.1 inside=() n
  mkdir -p "$d"; chmod 755 "$d"
  port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
  if [ "$(id -u)" = 0 ]; then
    mkdir -p /run/sshd
    n=$((port % 250 + 1))
    if ip netns add "flow-rsync-$port" 2>/dev/null; then
      ip link add "fr$port" type veth peer name eth0 netns "flow-rsync-$port"
      ip addr add "10.213.$n.1/30" dev "fr$port"; ip link set "fr$port" up
      ip -n "flow-rsync-$port" addr add "10.213.$n.2/30" dev eth0
      ip -n "flow-rsync-$port" link set eth0 up; ip -n "flow-rsync-$port" link set lo up
      addr=10.213.$n.2; inside=(ip netns exec "flow-rsync-$port")
      echo "flow-rsync-$port" >"$d/netns"
    fi
  fi
  ssh-keygen -q -t ed25519 -N '' -f "$d/host_key"; ssh-keygen -q -t ed25519 -N '' -C flow -f "$d/id"
  cp "$d/id.pub" "$d/authorized_keys"
  echo "[$addr]:$port $(cut -d' ' -f1,2 "$d/host_key.pub")" >"$d/known_hosts"
  cat >"$d/sshd_config" <<C
ListenAddress $addr:$port
HostKey $d/host_key
PidFile $d/sshd.pid
AuthorizedKeysFile $d/authorized_keys
AuthenticationMethods publickey
PermitRootLogin prohibit-password
StrictModes no
UsePAM no
UseDNS no
PrintMotd no
MaxStartups 100
C
  "${inside[@]}" "$(command -v sshd)" -f "$d/sshd_config" -E "$d/sshd.log"
  for _ in $(seq 200); do
    ssh -F none -o BatchMode=yes -o UserKnownHostsFile="$d/known_hosts" -i "$d/id" -p "$port" "$(id -un)@$addr" true \
      2>/dev/null && { echo "$addr $port $d/id $d/known_hosts $(id -un)"; return; }
    sleep 0.05
  done
  cat "$d/sshd.log" >&2; return 1
}

stop() {
  local d=$1
  [ -s "$d/sshd.pid" ] && kill "$(cat "$d/sshd.pid")" 2>/dev/null || true
  [ -s "$d/netns" ] || return 0
  ip netns pids "$(cat "$d/netns")" | xargs -r kill 2>/dev/null || true
  ip link del "fr${port:-$(sed 's/flow-rsync-//' "$d/netns")}" 2>/dev/null || true
  ip netns del "$(cat "$d/netns")"
}

case ${1:-} in install) install;; start|stop) "$1" "$2";; *) sed -n '2,7p' "$0"; exit 2;; esac
