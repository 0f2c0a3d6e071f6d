#!/bin/bash
# Apptainer (and singularity, its other name). Where the distribution has no package of it, that of Debian sid is unpacked
# with the libraries that it needs into a directory, and runs in a mount namespace in which that directory is the root.
#   apptainer.sh install       apt packages (root, once)
#   apptainer.sh commands DIR  writes the commands apptainer and singularity into DIR
#   apptainer.sh run CMD...    runs a program of that root; all directories but its own system are this machine's
# Root only, and only where package lists say that the machine is Debian.
set -euo pipefail
ROOT=${FLOW_SID_ROOT:-/opt/flow-test-sid}

install() {
  command -v apptainer >/dev/null 2>&1 && return 0
  [ ! -e "$ROOT/usr/bin/apptainer" ] || return 0
  local made state one
  made=$(mktemp -d "${ROOT%/*}/.flow-sid-XXXXXX")
  state=$(mktemp -d)
  # shellcheck disable=SC2064  # now
  trap "rm -rf '$made' '$state'" EXIT
  mkdir -p "$state"/{lists/partial,cache/archives/partial} && : >"$state/status"
  chmod -R a+rX "$state"
  echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian sid main" >"$state/sources.list"
  set -- -qq -o "Dir::State::lists=$state/lists" -o "Dir::State::status=$state/status" -o "Dir::Cache=$state/cache" \
    -o "Dir::Etc::sourcelist=$state/sources.list" -o Dir::Etc::sourceparts=- -o APT::Sandbox::User=root \
    -o Acquire::Languages=none
  apt-get "$@" update
  apt-get "$@" install -y --no-install-recommends --download-only apptainer bash coreutils mount
  mkdir -p "$made"/usr/{bin,sbin,lib,lib64}
  for one in bin sbin lib lib64; do ln -s "usr/$one" "$made/$one"; done
  for one in "$state"/cache/archives/*.deb; do dpkg-deb --fsys-tarfile "$one" | tar -C "$made" -x --keep-directory-symlink; done
  ln -s bash "$made/usr/bin/sh"
  cp -L /etc/passwd /etc/group /etc/localtime "$made/etc/"
  # A machine whose root lacks a right, as this may be, cannot give it to others.
  sed -i 's/^root default capabilities = .*/root default capabilities = no/' "$made/etc/apptainer/apptainer.conf"
  mkdir -p "$made"/{proc,sys,dev,tmp,root,run,work,opt,home,mnt,.old}
  rm -rf "$ROOT" && mv "$made" "$ROOT"
}

run() {
  [ -x "$ROOT/usr/bin/apptainer" ] || exec "$@"
  # shellcheck disable=SC2016  # for the shell within
  exec unshare --mount --propagation private bash -c '
    root=$1 place=$PWD; shift
    mount --rbind "$root" "$root"
    cp /etc/resolv.conf /etc/hosts "$root/etc/" 2>/dev/null
    for one in /*; do
      case $one in /bin | /boot | /etc | /lib* | /lost+found | /sbin | /usr | /var) continue ;; esac
      [ -d "$one" ] && mkdir -p "$root$one" && mount --rbind "$one" "$root$one"
    done
    cd "$root"; pivot_root . .old; cd /; umount -l /.old; cd "$place" 2>/dev/null; exec "$@"' _ "$ROOT" "$@"
}

commands() {
  local one self
  self=$(readlink -f "$0")
  for one in apptainer singularity; do
    printf '#!/bin/bash\nexec bash %q run /usr/bin/apptainer "$@"\n' "$self" >"$1/$one"
    chmod 755 "$1/$one"
  done
}

case ${1:-} in
  install) install ;;
  run | commands) verb=$1; shift; "$verb" "$@" ;;
  *) sed -n '2,8p' "$0"; exit 2 ;;
esac
