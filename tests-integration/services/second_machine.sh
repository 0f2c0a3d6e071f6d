#!/bin/bash
# Other machines: each with a root file system, network, host name, process ids, user, Python and sshd of its own.
#   second_machine.sh install         apt packages, and the system of all machines (root, once; two minutes), in SM_CACHE
#   second_machine.sh layer NAME P..  apt packages for machines that are started with SM_LAYERS=NAME (once)
#   second_machine.sh start K ...     machines nodeK (2 s each), 1 <= K <= 9, and the laptop; prints what clients need
#   second_machine.sh laptop CMD ...  runs a command on the laptop: files of this machine, and /home/bob, which is its own
#   second_machine.sh exec K CMD ...  as root on nodeK              as K CMD ...      as alice, by ssh from the laptop
#   second_machine.sh cut|heal K      link down / up                mute|unmute K     silent, while all links stay up
#   second_machine.sh nat on|off      the laptop answers no connection that it did not begin, as behind a router
#   second_machine.sh hide|show K     the laptop and nodeK do not reach each other; the other nodes reach both
#   second_machine.sh move A          the laptop goes on with the address NET.A alone
#   second_machine.sh ps K            what runs there               disk K            what was written there since start
#   second_machine.sh off             the laptop loses its power; `start` gives it another
#   second_machine.sh kill K          nodeK loses its power; its disk goes with it
#   second_machine.sh stop            ends everything; networks, disks and the directory are gone
#   second_machine.sh clean           removes SM_CACHE
# Root only. SM_DIR is the directory of one set of machines, and several run side by side. Nothing of this machine is seen in a
# node. Nodes have this tree's Flow, in /opt/flowenv, unless SM_BARE=1. Faults, of the nodes that a `start` starts:
#   SM_NOSHM=1 (no /dev/shm)  SM_TMP_NOEXEC=1  SM_NO_TMP=1 (/tmp is not writable)  SM_RO_HOME=1  SM_NOFILE=256
#   SM_FAKETIME=+3600 (clock of all sessions)  SM_NO_NAMES=1 (no name resolves)  SM_V6=1 (fd00:10::/64 only)
#   SM_SSHD='AllowTcpForwarding no' (lines of its sshd's configuration, parted by ;)
set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin
HERE=$(cd "$(dirname "$0")" && pwd); ROOT=$(cd "$HERE/../.." && pwd)
D=${SM_DIR:-/tmp/flow-machines-$(id -u)}; CACHE=${SM_CACHE:-/var/cache/flow-second-machine}; U=alice
DISTRIBUTIONS='flow-core flow-providers flow-executors flow-staging flow-monitor flow-viz flow'

live() { grep -qs '^State:.[^Z]' "/proc/$1/status"; }
wait_for() { local t=$((SECONDS+20)); until "$@" >/dev/null 2>&1; do [ $SECONDS -lt $t ] || return 1; sleep 0.05; done; }
number() { cat "$D/number"; }
ns() { echo "flow-m$(number)-$1"; }
veth() { echo "flw$(number)-$1"; }
net() { echo "10.217.$(number)"; }
addr() { cat "$D/$1/addr"; }

# -- the system, made once, and the layers over it

system() {
  export DEBIAN_FRONTEND=noninteractive
  { command -v ip && command -v debootstrap && command -v iptables && command -v ssh-keygen && command -v nsenter; } >/dev/null ||
    apt-get -o DPkg::Lock::Timeout=300 install -y --no-install-recommends iproute2 debootstrap iptables openssh-client util-linux
  mkdir -p "$CACHE"; chmod 755 "$CACHE"
  exec 8>"$CACHE/lock"; flock -w 600 8
  [ -e "$CACHE/system/.ready" ] || {
    rm -rf "$CACHE/system" "$CACHE/venv"
    debootstrap --variant=minbase \
      --include=openssh-server,python3,python3-venv,rsync,iproute2,procps,ca-certificates,iputils-ping,libfaketime,curl \
      bookworm "$CACHE/system" ${SM_MIRROR:-}
    chroot "$CACHE/system" useradd -m -s /bin/bash -u 1500 -p '*' "$U"   # no password, yet not "locked", which sshd would refuse
    chroot "$CACHE/system" python3 -m venv --without-pip /opt/flowenv    # of the node's own Python, at a path that is nowhere else
    mkdir -p "$CACHE/venv/opt"; mv "$CACHE/system/opt/flowenv" "$CACHE/venv/opt/"
    : >"$CACHE/system/.ready"
  }
  exec 8>&-
}

uv() {
  local at
  for at in "${SM_UV:-}" "$(type -P uv)" "$ROOT/.venv-tools/bin/uv" "$(git -C "$ROOT" rev-parse --path-format=absolute --git-common-dir 2>/dev/null)/../.venv-tools/bin/uv"; do
    [ -x "$at" ] && { "$at" "$@"; return; }
  done
  echo "uv is needed, to build the wheels for the nodes: pip install uv" >&2; return 1
}

flow_layer() {   # prints the layer with the environment of this tree; built where its sources are new
  local digest layer part one
  digest=$(cd "$ROOT/packages" && find $DISTRIBUTIONS -type f \( -path '*/src/*' -o -name pyproject.toml \) ! -name '*.pyc' -print0 |
    sort -z | xargs -0 sha256sum | sha256sum | cut -c1-16)
  layer=$CACHE/flow-$digest
  exec 8>"$CACHE/lock"; flock -w 600 8
  for one in $(ls -dt "$CACHE"/flow-* 2>/dev/null | tail -n +9); do   # of older trees: kept while machines have them
    grep -q "$one[:,]" /proc/mounts || rm -rf "$one"
  done
  [ -e "$layer" ] || {
    part=$CACHE/part; rm -rf "$part" "$part.wheels"; cp -a "$CACHE/venv" "$part"
    for one in $DISTRIBUTIONS; do uv build -q --wheel -o "$part.wheels" "$ROOT/packages/$one" >&2; done
    uv pip install -q --python-version 3.11 --only-binary :all: --target "$part"/opt/flowenv/lib/python3.11/site-packages "$part".wheels/*.whl >&2
    rm -rf "$part"/opt/flowenv/lib/python3.11/site-packages/bin "$part.wheels"   # commands that begin with this machine's Python
    mv "$part" "$layer"
  }
  touch "$layer"
  exec 8>&-
  echo "$layer"
}

layer() {   # more apt packages, above the system
  local at=$CACHE/layer-$1 part=$CACHE/part-$1; shift
  exec 8>"$CACHE/lock"; flock -w 600 8
  [ ! -e "$at" ] || return 0
  rm -rf "$part"; mkdir -p "$part"/{upper,work,root}
  mount -t overlay overlay -o "lowerdir=$CACHE/system,upperdir=$part/upper,workdir=$part/work" "$part/root"
  mount -t proc proc "$part/root/proc"
  local rc=0
  cp /etc/resolv.conf "$part/root/etc/resolv.conf"; cp -r /etc/apt/apt.conf.d/. "$part/root/etc/apt/apt.conf.d/"
  { DEBIAN_FRONTEND=noninteractive chroot "$part/root" sh -c 'printf "#!/bin/sh\nexit 101\n" >/usr/sbin/policy-rc.d; chmod 755 /usr/sbin/policy-rc.d
    apt-get -qq update && apt-get -qq install -y --no-install-recommends "$@" && apt-get clean' x "$@" >&2; } || rc=1
  umount "$part/root/proc" "$part/root"
  [ $rc = 0 ] && mv "$part/upper" "$at"
  rm -rf "$part"; return $rc
}

# -- the machines

init() {   # process 1 of a node
  cat <<'E'
#!/bin/bash
mount -t proc proc /proc
mount -t sysfs -o ro sysfs /sys 2>/dev/null
# slurmd looks for a freezer
mount -t tmpfs tmpfs /sys/fs/cgroup 2>/dev/null && mkdir /sys/fs/cgroup/freezer && mount -t cgroup -o freezer cgroup /sys/fs/cgroup/freezer 2>/dev/null
mount -t tmpfs -o mode=755 tmpfs /dev
mkdir /dev/pts /dev/shm; mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts /dev/pts; ln -s pts/ptmx /dev/ptmx
for n in "null 1 3" "zero 1 5" "full 1 7" "random 1 8" "urandom 1 9" "tty 5 0"; do set -- $n; mknod -m 666 "/dev/$1" c "$2" "$3"; done
ln -s /proc/self/fd /dev/fd; ln -s /proc/self/fd/0 /dev/stdin; ln -s /proc/self/fd/1 /dev/stdout; ln -s /proc/self/fd/2 /dev/stderr
if [ "$SM_NOSHM" = 1 ]; then rmdir /dev/shm; else mount -t tmpfs -o mode=1777 tmpfs /dev/shm; fi
mount -t tmpfs -o "mode=1777$([ "$SM_TMP_NOEXEC" = 1 ] && echo ,noexec)" tmpfs /tmp
[ "$SM_NO_TMP" = 1 ] && chmod 755 /tmp /var/tmp
[ "$SM_RO_HOME" = 1 ] && { mount --bind /home /home; mount -o remount,bind,ro /home; }
[ -n "$SM_NOFILE" ] && ulimit -n "$SM_NOFILE"
# else nodes and laptop would pass for one machine, with one clock
cat /proc/sys/kernel/random/uuid >/run/boot_id; mount --bind /run/boot_id /proc/sys/kernel/random/boot_id
mkdir -p /run/sshd
/usr/sbin/sshd -f /etc/ssh/sshd_flow -E /var/log/sshd.log
trap 'exit 0' TERM
while :; do sleep 3600 & wait $!; done
E
}

link_up() {   # $1: laptop or K, $2: addresses with their masks
  local a m=$1
  ip netns add "$(ns "$1")"
  ip link add "$(veth "$1")" type veth peer name eth0 netns "$(ns "$1")"; ip link set "$(veth "$1")" master "flwb$(number)" up
  shift
  for a in "$@"; do
    ip -n "$(ns "$m")" addr add "$a" dev eth0 $(case $a in *:*) echo nodad;; esac)
  done
  ip -n "$(ns "$m")" link set eth0 up; ip -n "$(ns "$m")" link set lo up
}

names() {   # the hosts file of a machine
  local k
  echo "127.0.0.1 localhost"
  [ "${SM_NO_NAMES:-}" != 1 ] || [ "${1:-}" = laptop ] || return 0
  echo "$(net).1 laptop"
  for k in 1 2 3 4 5 6 7 8 9; do
    if [ -s "$D/$k/addr" ]; then echo "$(addr $k) node$k"; else echo "$(net).10$k node$k"; fi
  done
}

laptop_on() {
  local m=$D/laptop
  [ -s "$m/pid" ] && live "$(cat "$m/pid")" && return
  mkdir -p "$m"; echo "$(net).1" >"$m/addr"
  ip netns list | grep -qw "$(ns laptop)" || link_up laptop "$(net).1/24" "fd00:10::1/64"
  names laptop >"$m/hosts"
  { echo 'bob:x:0:0:bob:/home/bob:/bin/bash'; grep -v '^alice:\|^[^:]*:[^:]*:1500:' /etc/passwd; } >"$m/passwd"   # root by another name: its Python may be root's own
  # /home is this machine's with what the laptop writes over it, so that trees under /home can be tested. /home/bob is in memory:
  # it is a path that no node has, or can make.
  ip netns exec "$(ns laptop)" unshare --mount --pid --ipc --uts --fork --kill-child bash -c "
    hostname laptop; mount --make-rprivate /; mount -t proc proc /proc; mount --bind '$m/hosts' /etc/hosts; mount --bind '$m/passwd' /etc/passwd
    mount -t tmpfs -o mode=755 tmpfs /mnt; mkdir /mnt/upper /mnt/work
    mount -t overlay overlay -o lowerdir=/home,upperdir=/mnt/upper,workdir=/mnt/work /home
    install -d -m 755 /home/bob /home/bob/proj; install -d -m 700 /home/bob/.ssh; install -m 600 '$D/key' /home/bob/.ssh/id_ed25519
    ln -s '$D/known_hosts' /home/bob/.ssh/known_hosts; : >'$m/ready'
    while :; do sleep 3600 & wait \$!; done" </dev/null >"$m/log" 2>&1 &
  echo $! >"$m/pid"
  wait_for test -e "$m/ready" || { cat "$m/log" >&2; return 1; }
}

node_on() {
  local k=$1 m=$D/$1 r=$D/$1/root lower=$CACHE/system a one
  [ -s "$m/pid" ] && live "$(cat "$m/pid")" && return
  [ "${SM_BARE:-}" = 1 ] || lower=$(cat "$D/flow"):$lower
  for one in ${SM_LAYERS:-}; do lower=$CACHE/layer-$one:$lower; done
  mkdir -p "$m"/{upper,work,root}
  mount -t overlay overlay -o "lowerdir=$lower,upperdir=$m/upper,workdir=$m/work" "$r"
  a=$(net).10$k/24; [ "${SM_V6:-}" != 1 ] || a=fd00:10::10$k/64
  echo "${a%/*}" >"$m/addr"
  link_up "$k" "$a"
  echo "node$k" >"$r/etc/hostname"; names >"$r/etc/hosts"
  install -d -m 700 -o 1500 -g 1500 "$r/home/$U/.ssh"; install -m 600 -o 1500 -g 1500 "$D/key.pub" "$r/home/$U/.ssh/authorized_keys"
  ssh-keygen -q -t ed25519 -N '' -f "$r/etc/ssh/flow_key"
  {
    tr ';' '\n' <<<"${SM_SSHD:-}"   # the first line of a kind counts
    printf '%s\n' 'HostKey /etc/ssh/flow_key' 'PermitRootLogin no' 'PasswordAuthentication no' 'UsePAM no' 'UseDNS no' 'PrintMotd no' \
      'Subsystem sftp internal-sftp' 'MaxStartups 100' 'MaxSessions 100' 'PidFile /run/sshd.pid'
    [ -z "${SM_FAKETIME:-}" ] || echo "SetEnv LD_PRELOAD=/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1 FAKETIME=$SM_FAKETIME"
  } >"$r/etc/ssh/sshd_flow"
  init >"$r/init.sh"; chmod 755 "$r/init.sh"; : >"$m/marker"
  env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin SM_NOSHM="${SM_NOSHM:-}" SM_TMP_NOEXEC="${SM_TMP_NOEXEC:-}" SM_RO_HOME="${SM_RO_HOME:-}" \
    SM_NOFILE="${SM_NOFILE:-}" SM_NO_TMP="${SM_NO_TMP:-}" ip netns exec "$(ns "$k")" unshare --mount --pid --ipc --uts --fork --kill-child \
    bash -c "hostname node$k; mount --make-rprivate /; cd '$r'; exec chroot . /init.sh" </dev/null >"$m/log" 2>&1 &
  echo $! >"$m/pid"
  for one in "$(addr "$k")" "node$k"; do
    sed -i "/^$one /d" "$D/known_hosts"; echo "$one $(cut -d' ' -f1,2 "$r/etc/ssh/flow_key.pub")" >>"$D/known_hosts"
  done
  wait_for exec_ "$k" test -s /run/sshd.pid || { cat "$m/log" "$r/var/log/sshd.log" >&2; return 1; }
}

start() {
  [ "$(id -u)" = 0 ] || { echo "machines of their own need root" >&2; exit 1; }
  system >&2
  local h k
  mkdir -p "$D"; chmod 755 "$D"; touch "$D/known_hosts"
  [ -s "$D/key" ] || ssh-keygen -q -t ed25519 -N '' -C bob@laptop -f "$D/key"
  [ "${SM_BARE:-}" = 1 ] || flow_layer >"$D/flow"
  [ -s "$D/number" ] || {
    for h in $(shuf -i 1-250 -n 20); do ip link add "flwb$h" type bridge 2>/dev/null && { echo "$h" >"$D/number"; break; }; done
    [ -s "$D/number" ] || { echo "no bridge can be made here" >&2; exit 1; }
    ip link set "flwb$(number)" up
  }
  laptop_on
  for k in "$@"; do node_on "$k"; done
  echo "export SM_KEY=$D/key SM_KNOWN_HOSTS=$D/known_hosts SM_USER=$U SM_LAPTOP=$(addr laptop) $(for k in "$@"; do printf 'SM_NODE%s=%s ' "$k" "$(addr "$k")"; done)"
}

inner() { local p; p=$(pgrep -P "$(cat "$D/$1/pid")" | head -1); echo "${p:-$(cat "$D/$1/pid")}"; }
laptop() {   # with the caller's environment, but for the home
  HOME=/home/bob USER=bob LOGNAME=bob exec nsenter -t "$(inner laptop)" -m -p -n -u -i -- sh -c 'cd /home/bob/proj && exec "$@"' x "$@"
}
as() { local k=$1; shift; laptop ssh -F none -o BatchMode=yes -o ConnectTimeout=5 -o UserKnownHostsFile="$D/known_hosts" -i "$D/key" "$U@$(addr "$k")" "$@"; }
exec_() { local k=$1; shift; nsenter -t "$(inner "$k")" -m -p -n -u -i -r -w -- "$@"; }
disk() {
  (cd "$D/$1/upper" && find . -newer "$D/$1/marker" \( -type f -o -type s \) ! -path './var/log/*' ! -path './etc/*' ! -path './init.sh' \
    ! -path './run/*' -printf '%P\n' | sed 's#^#/#')
  nsenter -t "$(inner "$1")" -m -r -w -- find /tmp /dev/shm \( -type f -o -type s \) 2>/dev/null || true
}
away() {   # ends a machine; what it had is removed
  local m=$D/$1 p
  if [ -s "$m/pid" ]; then
    p=$(cat "$m/pid"); ! live "$p" || kill -9 "$p"                  # --kill-child: the whole pid namespace goes
    gone() { ! live "$p"; }; wait_for gone || true
  fi
  ip link del "$(veth "$1")" 2>/dev/null || true; ip netns del "$(ns "$1")" 2>/dev/null || true
  for _ in 1 2 3 4 5 6 7 8; do mountpoint -q "$m/root" || break; umount "$m/root" 2>/dev/null || sleep 0.3; done
  ! mountpoint -q "$m/root" || { echo "still mounted: $m/root" >&2; return 1; }
  rm -rf "$m"
}
stop() {
  local m
  [ -s "$D/number" ] || { rm -rf "$D"; return 0; }
  for m in "$D"/[1-9] "$D/laptop"; do [ ! -d "$m" ] || away "$(basename "$m")"; done
  ip link del "flwb$(number)" 2>/dev/null || true
  rm -rf "$D"
}
rules() { ip netns exec "$(ns laptop)" "$(case $1 in *:*) echo ip6tables;; *) echo iptables;; esac)" "${@:2}"; }
nat() {
  local a
  for a in 4 6:; do
    rules $a -F INPUT
    [ "$1" = off ] || { rules $a -A INPUT -i lo -j ACCEPT; rules $a -A INPUT -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT
      [ $a = 4 ] || rules $a -A INPUT -p icmpv6 -j ACCEPT; rules $a -A INPUT -i eth0 -j "${SM_NAT_HOW:-DROP}"; }
  done
}
hide() { rules "$(addr "$2")" "$1" OUTPUT -d "$(addr "$2")" -j DROP; rules "$(addr "$2")" "$1" INPUT -s "$(addr "$2")" -j DROP; }
move() {
  ip -n "$(ns laptop)" -4 addr flush dev eth0; ip -n "$(ns laptop)" -6 addr flush dev eth0 scope global
  ip -n "$(ns laptop)" addr add "$(net).$1/24" dev eth0; echo "$(net).$1" >"$D/laptop/addr"
}

case ${1:-} in
  install) system;;
  stop) stop;;
  layer) system >&2; shift; layer "$@";;
  start | laptop | as) verb=$1; shift; "$verb" "$@";;
  exec) shift; exec_ "$@";;
  cut) ip link set "$(veth "$2")" down;;
  heal) ip link set "$(veth "$2")" up;;
  mute) bridge link set dev "$(veth "$2")" state 0;;
  unmute) bridge link set dev "$(veth "$2")" state 3;;
  nat) nat "$2";;
  hide) hide -A "$2";;
  show) hide -D "$2";;
  move) move "$2";;
  ps) exec_ "$2" ps -eo user,pid,ppid,etimes,args --no-headers | grep -vE ' (ps -eo|sleep 3600|sshd|/usr/sbin/sshd|/bin/bash /init.sh)' || true;;
  disk) disk "$2";;
  off) away laptop;;
  kill) away "$2";;
  clean) rm -rf "$CACHE";;
  *) sed -n '2,25p' "$0"; exit 2;;
esac
