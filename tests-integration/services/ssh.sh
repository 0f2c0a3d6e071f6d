#!/bin/bash
# OpenSSH server on loopback, own host key, port and config; key login, and password + one-time code through PAM.
#   ssh.sh install   apt packages (root, once)      ssh.sh start   two sshd (0.2 s)      ssh.sh stop | clean | env
# As root: user $SSH_TEST_USER is created with password $SSH_TEST_PASSWORD; port P takes keys only,
#          port P+1 takes keyboard-interactive only: "Password: " then "One-time password (OATH) for `user': ".
# As a plain user: only port P, only that user, no PAM (sshd needs no root for that).
set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin
D=${SSH_TEST_DIR:-/tmp/flow-ssh-$(id -u)}; P=${SSH_TEST_PORT:-22022}; ADDR=${SSH_TEST_ADDR:-127.0.0.1}
ME=$(id -un); U=${SSH_TEST_USER:-flowssh}; [ "$ME" = root ] || U=$ME
PASS=${SSH_TEST_PASSWORD:-correct-horse}; SECRET=3132333435363738393031323334353637383930   # hex, TOTP 6 digits / 30 s

install() {
  export DEBIAN_FRONTEND=noninteractive
  dpkg -s openssh-server rsync libpam-oath oathtool >/dev/null 2>&1 ||
    apt-get -o DPkg::Lock::Timeout=300 install -y --no-install-recommends openssh-server rsync libpam-oath oathtool
}
live() { grep -qs '^State:.[^Z]' "/proc/$1/status"; }
alive() { [ -s "$1" ] && live "$(cat "$1")"; }
wait_for() { local t=$((SECONDS+20)); until "$@" >/dev/null 2>&1; do [ $SECONDS -lt $t ] || return 1; sleep 0.05; done; }

conf() {
  mkdir -p "$D"; chmod 755 "$D"                       # StrictModes no below: /tmp is world-writable, sshd would refuse the keys
  [ -s "$D/host_key" ] || ssh-keygen -q -t ed25519 -N '' -f "$D/host_key"
  [ -s "$D/id" ] || ssh-keygen -q -t ed25519 -N '' -C flow -f "$D/id"
  cp "$D/id.pub" "$D/authorized_keys"; chmod 644 "$D/authorized_keys"
  local name="[$ADDR]:$P"; [ "$P" != 22 ] || name=$ADDR          # known_hosts writes port 22 without brackets
  { echo "$name $(cut -d' ' -f1,2 "$D/host_key.pub")"; echo "[$ADDR]:$((P+1)) $(cut -d' ' -f1,2 "$D/host_key.pub")"; } >"$D/known_hosts"
  local pam=no; [ "$ME" != root ] || pam=yes
  cat >"$D/sshd_config" <<E
ListenAddress $ADDR:$P
HostKey $D/host_key
PidFile $D/sshd.pid
AuthorizedKeysFile $D/authorized_keys
AuthenticationMethods publickey
StrictModes no
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM $pam
AllowUsers $U
Subsystem sftp internal-sftp
MaxStartups 100
MaxSessions 100
UseDNS no
PrintMotd no
E
  [ "$ME" = root ] || return 0
  mkdir -p /run/sshd                                  # privilege separation directory, made by systemd elsewhere
  id "$U" >/dev/null 2>&1 || useradd -m -s /bin/bash "$U"
  echo "$U:$PASS" | chpasswd
  sed "s/:$P\$/:$((P+1))/; s/sshd.pid/sshd2.pid/; s/^AuthenticationMethods .*/AuthenticationMethods keyboard-interactive:pam/
       s/^KbdInteractiveAuthentication .*/KbdInteractiveAuthentication yes/" "$D/sshd_config" >"$D/sshd2_config"
  # sshd's PAM service is the basename of the program: a link of another name gets its own /etc/pam.d file
  ln -sf /usr/sbin/sshd "$D/sshd-flow-2fa"
  cat >/etc/pam.d/sshd-flow-2fa <<E
auth     requisite pam_unix.so
auth     required  pam_oath.so usersfile=$D/users.oath window=5 digits=6
account  required  pam_unix.so
session  required  pam_permit.so
E
  (umask 077; echo "HOTP/T30/6 $U - $SECRET" >"$D/users.oath")
}

start() {
  conf
  alive "$D/sshd.pid" || /usr/sbin/sshd -f "$D/sshd_config" -E "$D/sshd.log"
  [ "$ME" != root ] || alive "$D/sshd2.pid" || "$D/sshd-flow-2fa" -f "$D/sshd2_config" -E "$D/sshd2.log"
  wait_for ssh -F none -o BatchMode=yes -o UserKnownHostsFile="$D/known_hosts" -i "$D/id" -p "$P" "$U@$ADDR" true
  env_
}
stop() {
  local f p
  for f in "$D/sshd.pid" "$D/sshd2.pid"; do
    alive "$f" || continue
    p=$(cat "$f"); kill "$p"; gone() { ! live "$p"; }; wait_for gone || kill -9 "$p"; rm -f "$f"
  done
}
env_() { echo "export SSH_TEST_USER=$U SSH_TEST_HOST=$ADDR SSH_TEST_PORT=$P SSH_TEST_KEY=$D/id SSH_TEST_KNOWN_HOSTS=$D/known_hosts SSH_TEST_2FA_PORT=$((P+1)) SSH_TEST_PASSWORD=$PASS SSH_TEST_TOTP=$SECRET"; }
case ${1:-} in install) install;; start|stop) "$1";; clean) rm -rf "$D" /etc/pam.d/sshd-flow-2fa;; env) env_;; *) sed -n '2,7p' "$0"; exit 2;; esac
