flow_probe='import sys
v = "%d.%d" % sys.version_info[:2]
sys.path = [p for p in sys.path if p]
try:
    import zmq, cloudpickle, psutil, flow_core, flow_executors
    exec(sys.argv[1])
    print("flow", v, code_digest("flow_core", "flow_executors") or "-", flow_executors.__version__)
except Exception as e:
    print("bare", v, str(e).replace("\n", " "))'
flow_python='' flow_bare='' flow_other='' flow_tried=''
flow_try() {
  local path says
  [ -n "$1" ] || return 0
  path=$(command -v -- "$1" 2>/dev/null) || { flow_tried+="; $1: not there"; return 0; }
  says=$("$path" -c "$flow_probe" "$flow_digest" 2>&1 </dev/null | tail -n 1) || true
  case $says in
    "flow $flow_wanted "*)
      says=${says#"flow $flow_wanted "}
      if [ "$flow_ship" = always ]; then flow_bare=${flow_bare:-$path}
      # without anything that could be sent, the script is told when the manager registers
      elif [ -z "$flow_ship" ] || [ -z "$flow_code" ] || [ "${says%% *}" = "$flow_code" ]; then flow_python=$path
      elif [ -z "$flow_bare" ]; then flow_bare=$path flow_other="Flow ${says#* } of $path"
      fi ;;
    "bare $flow_wanted "*) flow_tried+="; $path: Python $flow_wanted without Flow (${says#bare * })"; flow_bare=${flow_bare:-$path} ;;
    "flow "* | "bare "*) says=${says#* }; flow_tried+="; $path: Python ${says%% *}, and the script runs $flow_wanted" ;;
    *) flow_tried+="; $path: no Python that runs ($says)" ;;
  esac
}
# whether all that leads to a path is of root, of this user, or of who has made it where the script runs
flow_trusted() {
  local one=$1
  while [ -n "$one" ]; do
    case " 0 $EUID $flow_owners $(stat -c %u / 2>/dev/null || :) " in
      *" $(stat -c %u -- "$one" 2>/dev/null || echo nobody) "*) ;;
      *) return 1 ;;
    esac
    one=${one%/*}
  done
}
# the script's own path, which nobody has named for this node: on a disk of its own another user may have made it
flow_guess() {
  local all=1 one
  case $1 in
    /*) for one in "$1" "$(readlink -f -- "${1%/*}")" "$(readlink -f -- "$1")"; do flow_trusted "$one" || all=; done ;;
  esac
  if [ -e "$1" ] && [ -z "$all" ]; then
    flow_tried+="; $1: another user of this node has made it"
  else
    flow_try "$1"
  fi
}
flow_fail() {
  printf 'flow: no manager can start %son node %s: %s\n' "${FLOW_IMAGE:+in image $FLOW_IMAGE }" "$(uname -n)" "$1" >&2
  # by 127 the container's runtime would say that there is no bash
  [ -z "${FLOW_IMAGE:-}" ] || exit 3
  exit 127
}
flow_add() {
  flow_dir=$("$flow_python" -c "$flow_loader" "$1") || flow_fail "what $flow_python needs could not be brought (see above). $2"
  flow_take "$flow_dir"
}
flow_take() {
  export FLOW_RUNTIME_PATH="$1${FLOW_RUNTIME_PATH:+:$FLOW_RUNTIME_PATH}"
  export PYTHONPATH="$1${PYTHONPATH:+:$PYTHONPATH}"
}
flow_bring() {
  [ -n "$flow_bare" ] || flow_fail "tried${flow_tried#;}. $2"
  flow_python=$flow_bare
  if [ -z "$flow_other" ]; then
    flow_add "$1" "$2"
  elif flow_dir=$("$flow_python" -c "$flow_loader" "$1"); then
    flow_take "$flow_dir"
    export FLOW_LEFT_ASIDE="$flow_other"
  else
    printf "flow: %s is other code than the script's, which could not be brought (see above): it is run\\n" "$flow_other" >&2
  fi
}
flow_bring_environment() {
  local one place new
  for one in "${FLOW_PYTHON:-}" python3 python; do
    [ -n "$one" ] && command -v -- "$one" >/dev/null 2>&1 || continue
    flow_environment=$("$one" -c "$flow_loader" "$1") && return 0
    flow_tried+="; $one could not bring the environment (see above)"
  done
  # without any Python: if it came with the job, the shell can do it
  one=${!2:-}
  # what lies there is run: a directory of the user's own, also in one that all users share
  root=${FLOW_CACHE:+$FLOW_CACHE/$EUID}
  root=${root:-${XDG_CACHE_HOME:-$HOME/.cache}/flow}
  mkdir -p -m 700 "$root" && [ -O "$root" ] && { [ -z "${FLOW_CACHE:-}" ] || [ ! -L "$root" ]; } && chmod go-w "$root" ||
    flow_fail "$root cannot be made, or is another user's: set FLOW_CACHE"
  place=$root/environment
  flow_environment=$place/${3:0:32}
  [ -e "$flow_environment/.flow-ready" ] && return 0
  [ -f "$one" ] && [ -r "$one" ] || flow_fail "the packed environment did not come with the job${flow_tried}"
  mkdir -p -m 700 "$place" && new=$(mktemp -d "$place/.new-XXXXXX") || flow_fail "$place cannot be made: set FLOW_CACHE"
  # by one open file: who owns the directory could put another one there between two looks
  exec 9<"$one"
  [ -O /dev/fd/9 ] || [ "$(stat -Lc %u /dev/fd/9)" = 0 ] || flow_fail "$one is another user's"
  echo "$3  /dev/fd/9" | sha256sum -c --quiet >&2 && tar -xf /dev/fd/9 -C "$new" || flow_fail "$one is damaged, or no tar file that can be read here"
  exec 9<&-
  mv -T "$new" "$flow_environment" 2>/dev/null || rm -rf "$new"
  [ ! -e "$flow_environment/bin/conda-unpack" ] || "$flow_environment/bin/python" "$flow_environment/bin/conda-unpack" >&2
  : >"$flow_environment/.flow-ready"
}
