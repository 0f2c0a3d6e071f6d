#!/bin/bash
# podman, without systemd, a registry or a daemon, and images with Python that are made of this machine's own files.
#   podman.sh install              apt packages (root, once)
#   podman.sh settings FILE        writes settings for machines like this one; CONTAINERS_CONF=FILE makes them podman's
#   podman.sh rootfs PYTHON DIR    makes DIR the root of a small system with bash and the Python whose command is given
#   podman.sh image PYTHON NAME    the same as an image, unless there is one of that name
#   podman.sh serve SOCKET         lets podman answer as docker's daemon, until it is ended
# Root only.
set -euo pipefail

install() {
  export DEBIAN_FRONTEND=noninteractive
  dpkg -s podman runc catatonit >/dev/null 2>&1 ||
    apt-get -o DPkg::Lock::Timeout=300 install -y --no-install-recommends podman runc catatonit
}

# Where the limits of root cannot be raised, podman's usual ones fail; crun refuses cgroups of both versions at once.
settings() {
  cat >"$1" <<'CONF'
[containers]
default_ulimits = ["nofile=20000:20000", "nproc=20000:20000"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
CONF
}

rootfs() {
  local prefix lib=/usr/lib/x86_64-linux-gnu root=$2 one path
  lib=$(dirname "$(ldd /bin/bash | grep -o '/[^ ]*libc\.so\.6')")
  prefix=$("$1" -c 'import sys; print(sys.base_prefix)')
  mkdir -p "$root"/{usr/bin,usr/lib64,"$lib",opt/python/bin,opt/python/lib,tmp,proc,sys,dev,etc,root,var/tmp,run,mnt}
  chmod 1777 "$root/tmp" "$root/var/tmp"
  for one in bin lib lib64; do [ -e "$root/$one" ] || ln -s "usr/$one" "$root/$one"; done
  echo 'root:x:0:0:root:/root:/bin/bash' >"$root/etc/passwd"
  echo 'root:x:0:' >"$root/etc/group"
  printf 'hosts: files dns\npasswd: files\ngroup: files\n' >"$root/etc/nsswitch.conf"
  for one in bash sh cat cp date dirname echo env grep head hostname id kill ln ls mkdir mktemp mv ps rm sed sha256sum sleep tail tar tr uname wc; do
    path=$(type -P "$one") && cp -L "$path" "$root/usr/bin/"
  done
  cp -L "$prefix"/bin/python3.*[0-9] "$root/opt/python/bin/"
  path=$(cd "$root/opt/python/bin" && echo python3.*[0-9])
  for one in python python3; do ln -s "/opt/python/bin/$path" "$root/usr/bin/$one"; done
  tar -C "$prefix/lib" --exclude=test --exclude=tests --exclude=__pycache__ --exclude='*.a' --exclude=idlelib --exclude=lib2to3 \
    --exclude=ensurepip --exclude=site-packages --exclude='config-*' --exclude=tkinter -c "$path" | tar -C "$root/opt/python/lib" -x
  find "$prefix/lib" -maxdepth 1 -name 'libpython3*.so*' -exec cp -a {} "$root$lib/" \;
  mkdir -p "$root/opt/python/lib/$path/site-packages"
  # all libraries that these programs need, for each at its place
  { find "$root" -type f \( -name '*.so*' -o -perm -u+x \) -print0 | xargs -0 -n 50 ldd 2>/dev/null | grep -oE '/[^ ]+\.so[^ ]*' || true
    # and those that wheels take for granted
    ls "$lib"/lib{nss_files,nss_dns,resolv,dl}.so.2 "$lib"/lib{rt,util,gcc_s}.so.1 "$lib"/lib{m,stdc++}.so.6 "$lib"/libpthread.so.0 2>/dev/null || true; } | sort -u | while read -r path; do
    case $path in
      "$root"* | "$prefix"*) ;;
      *ld-linux*) mkdir -p "$root/${path%/*}"; cp -L "$path" "$root$path" ;;
      *) [ ! -e "$path" ] || cp -L "$path" "$root$lib/" ;;
    esac
  done
}

image() {
  podman image exists "$2" && return 0
  local root
  root=$(mktemp -d)
  # shellcheck disable=SC2064  # now
  trap "rm -rf '$root'" EXIT
  rootfs "$1" "$root"
  tar -C "$root" -c . | podman import --quiet --change ENV=PATH=/usr/bin:/bin - "$2"
}

case ${1:-} in
  install) install ;;
  settings | rootfs | image) verb=$1; shift; "$verb" "$@" ;;
  serve) exec podman system service --time=0 "unix://$2" ;;
  *) sed -n '2,8p' "$0"; exit 2 ;;
esac
