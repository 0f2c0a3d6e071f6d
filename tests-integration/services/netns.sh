#!/bin/bash
# Hosts with addresses of their own on one machine: network namespaces on a bridge, with links that can be cut.
#   netns.sh install          apt package (root, once)
#   netns.sh start DIR COUNT  makes them; prints their addresses, this machine's first
#   netns.sh exec DIR K CMD.. runs a command on host K (1 and up) in its own network
#   netns.sh cut DIR K        takes host K's link down: nobody hears anything, connections stall
#   netns.sh heal DIR K       puts it up again
#   netns.sh rate DIR K RATE  makes the way to host K as slow as 100mbit or the like; "none" takes that back
#   netns.sh stop DIR         ends what runs in them, and removes them
# Root only. No packet leaves the machine: the bridge has no port but theirs, and they have no default route.
set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin

install() {
  export DEBIAN_FRONTEND=noninteractive
  { command -v ip && command -v tc; } >/dev/null || apt-get -o DPkg::Lock::Timeout=300 install -y --no-install-recommends iproute2
}

start() {
  local d=$1 count=$2 id=0 h addresses
  mkdir -p "$d"
  for h in $(shuf -i 1-250 -n 20); do ip link add "flow-br$h" type bridge 2>/dev/null && { id=$h; break; }; done
  [ "$id" != 0 ] || { echo "no bridge can be made here" >&2; return 1; }
  echo "$id" >"$d/id"; echo "$count" >"$d/count"
  ip addr add "10.213.$id.1/24" dev "flow-br$id"; ip link set "flow-br$id" up
  addresses=10.213.$id.1
  for h in $(seq "$count"); do
    ip netns add "flow-$id-$h"
    ip link add "flow-v$id-$h" type veth peer name eth0 netns "flow-$id-$h"
    ip link set "flow-v$id-$h" master "flow-br$id" up
    ip -n "flow-$id-$h" addr add "10.213.$id.$((h + 1))/24" dev eth0
    ip -n "flow-$id-$h" link set eth0 up; ip -n "flow-$id-$h" link set lo up
    addresses="$addresses 10.213.$id.$((h + 1))"
  done
  echo "$addresses"
}

stop() {
  local d=$1 id h
  [ -s "$d/id" ] || return 0
  id=$(cat "$d/id")
  for h in $(seq "$(cat "$d/count")"); do
    ip netns pids "flow-$id-$h" 2>/dev/null | xargs -r kill 2>/dev/null || true
    ip link del "flow-v$id-$h" 2>/dev/null || true
    ip netns del "flow-$id-$h" 2>/dev/null || true
  done
  ip link del "flow-br$id" 2>/dev/null || true
  rm -f "$d/id"
}

link() { echo "flow-v$(cat "$1/id")-$2"; }

case ${1:-} in
  install) install;;
  start) start "$2" "$3";;
  stop) stop "$2";;
  exec) d=$2 h=$3; shift 3; exec ip netns exec "flow-$(cat "$d/id")-$h" "$@";;
  cut) ip link set "$(link "$2" "$3")" down;;
  heal) ip link set "$(link "$2" "$3")" up;;
  rate) tc qdisc del dev "$(link "$2" "$3")" root 2>/dev/null || true
        [ "$4" = none ] || tc qdisc add dev "$(link "$2" "$3")" root tbf rate "$4" burst 256kbit latency 400ms;;
  *) sed -n '2,10p' "$0"; exit 2;;
esac
