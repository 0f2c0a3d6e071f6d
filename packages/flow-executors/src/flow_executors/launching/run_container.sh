flow_say() { printf 'flow: %s\n' "$1" >&2; }
flow_refuse() {
  flow_say "no manager can start in a container on node ${HOSTNAME:-$(uname -n)}: $1"
  exit 127
}
# what would hide the image's own system, and paths that the words of runtimes cannot name
flow_bindable() {
  case $1 in
    / | /bin | /bin/* | /dev | /dev/* | /etc | /etc/* | /lib | /lib/* | /lib64 | /lib64/* | /proc | /proc/* | /run | /sbin | /sbin/* | /sys | /sys/* | /usr | /usr/* | /var) return 1 ;;
    *[:,]*) flow_refuse "$1 cannot be bound: its name has a colon or a comma" ;;
  esac
  [ -e "$1" ]
}
flow_bound=:
# flow_share PATH [ro]: the same path in the container, once
flow_share() {
  case $flow_bound in *":$1:"*) return 0 ;; esac
  flow_bindable "$1" || return 0
  flow_bound+=$1:
  if [ "${2:-}" = ro ]; then flow_bind_read_only "$1" "$1"; else flow_bind "$1" "$1"; fi
}
flow_give() { # what the user named must be there: an engine would make it
  [ -e "$1" ] || flow_refuse "$1 of binds= is not there"
  flow_bound+=$2:
  if [ "$3" = ro ]; then flow_bind_read_only "$1" "$2"; else flow_bind "$1" "$2"; fi
}
# what Flow's files for a job are named by: secrets, files of the job, sockets of a channel
flow_share_files() {
  local name one
  for name in $(compgen -e); do
    case $name in
      FLOW_SECRET_*_BASE64) ;;
      FLOW_SECRET_* | FLOW_FILE_*) [ ! -e "${!name}" ] || flow_share "$(cd "$(dirname "${!name}")" && pwd)" ;;
    esac
  done
  for one in ${FLOW_FORWARDS:-}; do
    case $one in unix:/*) one=${one#unix:}; flow_share "${one%/*}" ;; esac
  done
}
# what was brought is kept on the node, and not in the container, which is thrown away
flow_share_cache() {
  local place=${FLOW_CACHE:-${XDG_CACHE_HOME:-${HOME:-/nowhere}/.cache}/flow/containers}
  ( umask 077; mkdir -p "$place" ) 2>/dev/null && [ -w "$place" ] || return 0
  export FLOW_CACHE=$place
  flow_share "$place"
}
flow_give_variables() {
  local name
  for name in $(compgen -e); do
    if flow_of_job "$name" && ! flow_of_node "$name"; then flow_variable "$name"; fi
  done
}
flow_bring_image() {
  local said
  flow_present >/dev/null 2>&1 && return 0
  said=$(flow_fetch 2>&1 >/dev/null) && return 0
  flow_refuse "$flow_program has no image $flow_image there, and cannot bring it: ${said##*$'\n'}"
}
flow_client='' flow_guard=''
flow_stop() { # TERM came: the manager has seconds to end in order, then the container is removed
  trap '' TERM INT HUP
  [ -z "$flow_client" ] || kill -TERM "$flow_client" 2>/dev/null
  [ -n "$flow_guard" ] || { ( trap - TERM; sleep 3 & trap 'kill $!; exit' TERM; wait $!; flow_remove ) >/dev/null 2>&1 & flow_guard=$!; }
}
flow_run() {
  local code=0 again
  trap flow_stop TERM INT HUP
  # shellcheck disable=SC2086  # names
  ( trap - TERM INT HUP; [ -z "$flow_unset" ] || unset $flow_unset; exec "$@" ) </dev/null &
  flow_client=$!
  while wait "$flow_client"; code=$?; kill -0 "$flow_client" 2>/dev/null; do :; done
  # a wait that a signal interrupted had another code
  wait "$flow_client" 2>/dev/null
  again=$?
  [ "$again" = 127 ] || code=$again
  trap '' TERM INT HUP
  [ -z "$flow_guard" ] || kill -TERM "$flow_guard" 2>/dev/null
  flow_remove >/dev/null 2>&1
  case $code in
    125 | 126 | 127 | 255) flow_say "$flow_program ran no manager in image $flow_image (exit code $code): see above. The image of a pool needs bash and a Python" ;;
  esac
  exit "$code"
}
