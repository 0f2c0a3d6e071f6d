#!/bin/bash
# A stand-in for shifter, which no distribution has and no machine without its gateway can run: it takes the words of
# shifter's command line that Flow writes, refuses others, and runs the command in a directory with that image, as root.
#   shifter_stand_in.sh install            nothing to do
#   shifter_stand_in.sh commands DIR       writes the commands shifter and shifterimg into DIR
#   SHIFTER_IMAGE, SHIFTER_ROOT: the only image that its gateway has, such as docker:x:1, and the directory with it
set -euo pipefail

shifterimg() {
  [ "$1" = lookup ] && [ "$2" = "$SHIFTER_IMAGE" ] && { echo 0123456789abcdef; return 0; }
  echo "the gateway of this stand-in has no image ${2:-}" >&2
  return 1
}

shifter() {
  local image='' place=/ volumes=()
  while [ $# -gt 0 ]; do
    case $1 in
      --volume=*:*) volumes+=("${1#--volume=}") ;;
      --workdir=*) place=${1#--workdir=} ;;
      --image=*) image=${1#--image=} ;;
      --module=gpu) ;;
      -*) echo "shifter's stand-in does not know $1" >&2; return 1 ;;
      *) break ;;
    esac
    shift
  done
  [ "$image" = "$SHIFTER_IMAGE" ] || { echo "FAILED to find image $image" >&2; return 1; }
  # shellcheck disable=SC2016  # for the shell within
  exec unshare --mount --propagation private bash -c '
    root=$1 place=$2 count=$3; shift 3
    mount --rbind "$root" "$root"
    for one in /proc /sys /dev; do mount --rbind "$one" "$root$one"; done
    while [ "$count" -gt 0 ]; do
      IFS=: read -r source target mode <<<"$1"; shift; count=$((count - 1))
      mkdir -p "$root$target"; mount --rbind "$source" "$root$target"
      [ "$mode" != ro ] || mount -o remount,bind,ro "$root$target"
    done
    PATH=$PATH:/usr/sbin:/sbin
    exec chroot "$root" /usr/bin/env PATH=/usr/bin:/bin bash -c "cd \"\$0\"; exec \"\$@\"" "$place" "$@"' _ \
    "$SHIFTER_ROOT" "$place" "${#volumes[@]}" "${volumes[@]}" "$@"
}

commands() {
  local one self
  self=$(readlink -f "$0")
  for one in shifter shifterimg; do
    printf '#!/bin/bash\nexec bash %q %s "$@"\n' "$self" "$one" >"$1/$one"
    chmod 755 "$1/$one"
  done
}

case ${1:-} in
  install) ;;
  shifter | shifterimg | commands) verb=$1; shift; "$verb" "$@" ;;
  *) sed -n '2,6p' "$0"; exit 2 ;;
esac
