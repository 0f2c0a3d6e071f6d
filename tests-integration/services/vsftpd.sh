#!/bin/bash
# Debian's vsftpd on loopback, by hand, anonymous with the right to write below pub/.
#   vsftpd.sh install     apt package (root, once)
#   vsftpd.sh start DIR   starts it in the background, serving DIR/root; prints its port
#                         with DIR/server.pem, certificate and key, it wants TLS: asked for by AUTH TLS, or, where
#                         DIR/implicit is, from the first byte on
#   vsftpd.sh stop DIR    ends it by its pid file
# Root only: vsftpd changes its root directory and its user.
set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin

install() {
  export DEBIAN_FRONTEND=noninteractive
  command -v vsftpd >/dev/null || apt-get -o DPkg::Lock::Timeout=300 install -y --no-install-recommends vsftpd
}

start() {
  local d=$1 port
  mkdir -p "$d/root/pub" "$d/empty"; chmod 755 "$d" "$d/root"; chmod 777 "$d/root/pub"
  port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
  cat >"$d/conf" <<C
listen=YES
listen_ipv6=NO
listen_address=127.0.0.1
listen_port=$port
background=NO
anonymous_enable=YES
anon_root=$d/root
anon_upload_enable=YES
anon_mkdir_write_enable=YES
anon_other_write_enable=YES
anon_umask=022
local_enable=NO
write_enable=YES
no_anon_password=YES
secure_chroot_dir=$d/empty
ftp_username=ftp
nopriv_user=nobody
seccomp_sandbox=NO
pasv_address=127.0.0.1
C
  if [ -s "$d/server.pem" ]; then
    cat >>"$d/conf" <<C
ssl_enable=YES
allow_anon_ssl=YES
force_anon_logins_ssl=YES
force_anon_data_ssl=YES
require_ssl_reuse=YES
strict_ssl_read_eof=YES
strict_ssl_write_shutdown=YES
ssl_ciphers=HIGH
rsa_cert_file=$d/server.pem
implicit_ssl=$([ -e "$d/implicit" ] && echo YES || echo NO)
C
  fi
  vsftpd "$d/conf" >"$d/log" 2>&1 </dev/null &
  echo $! >"$d/pid"
  for _ in $(seq 200); do
    python3 -c "import socket; s = socket.create_connection(('127.0.0.1', $port), 5); $([ -e "$d/implicit" ] || echo 's.recv(3)')" 2>/dev/null && { echo "$port"; return; }
    sleep 0.05
  done
  cat "$d/log" >&2; return 1
}

stop() { [ -s "$1/pid" ] && kill "$(cat "$1/pid")" 2>/dev/null || true; }

case ${1:-} in install) install;; start|stop) "$1" "$2";; *) sed -n '2,8p' "$0"; exit 2;; esac
