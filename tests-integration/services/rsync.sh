#!/bin/bash
# A real sshd with rsync behind it, as the "submit side" of the rsync tests and for sftp; logs in the user who starts it, by key.
#   rsync.sh install      apt packages (root, once)
#   rsync.sh start DIR    key, host key, known_hosts, sshd; prints "ADDRESS PORT KEY KNOWN_HOSTS USER"
#   rsync.sh stop DIR     ends the sshd by its pid file and removes the network namespaces
# As root, two network namespaces are made (DIR/net, see netns.sh): the sshd lives in that of host 2, this machine and
# host 1 can reach it, and the link between can be cut; as a plain user the sshd listens on loopback.
set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin
NETNS=$(dirname "$0")/netns.sh

install() {
  export DEBIAN_FRONTEND=noninteractive
  { command -v rsync && command -v sshd && command -v ip; } >/dev/null && return  # of several names one would do
  apt-get -o DPkg::Lock::Timeout=300 install -y --no-install-recommends openssh-server rsync iproute2
}

start() {
  local d=$1 port addr=127.0.0.1 inside=() addresses
  mkdir -p "$d"; chmod 755 "$d"
  port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
  if [ "$(id -u)" = 0 ]; then
    mkdir -p /run/sshd
    if addresses=$("$NETNS" start "$d/net" 2 2>/dev/null); then
      addr=${addresses##* }; inside=("$NETNS" exec "$d/net" 2)
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
Subsystem sftp internal-sftp
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
  "$NETNS" stop "$d/net"
}

case ${1:-} in install) install;; start|stop) "$1" "$2";; *) sed -n '2,7p' "$0"; exit 2;; esac
