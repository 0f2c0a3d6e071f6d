"""The shell code that starts the MPI job of a block by the ``mpiexec`` that is there. Pure."""

from __future__ import annotations

LAUNCH_CMD = "{mpiexec} {python} -P -m {module} {debug} {options}"
"""The default template of the command of a block."""

_CODE = """\
flow_mpiexec() {{
  command -v mpiexec >/dev/null || {{
    echo "flow: no mpiexec is on PATH on node $(uname -n): load an MPI in worker_init, or name one by launch_cmd" >&2
    return 127
  }}
  case "$(mpiexec --version 2>&1 </dev/null)" in
    *"Open MPI"*|*OpenRTE*|*PRRTE*)
      mpiexec -n {ranks} --map-by ppr:{each}:node:OVERSUBSCRIBE --bind-to none \\
        ${{PATH:+-x PATH}} ${{PYTHONPATH:+-x PYTHONPATH}} ${{LD_LIBRARY_PATH:+-x LD_LIBRARY_PATH}} "$@" </dev/null ;;
    *) mpiexec -n {ranks} -ppn {each} "$@" </dev/null ;;
  esac
}}
flow_mpiexec"""


def mpiexec_code(ranks_per_node: int, nodes: int) -> str:
    """Return bash code that ends in a command which runs its arguments once a rank.

    Ranks are not bound to cores, since the workers are no ranks: the option ``cpu_affinity`` says where these run. More
    ranks than slots are allowed, since schedulers count one slot for the one task that a block is to them.
    """
    return _CODE.format(ranks=ranks_per_node * nodes, each=ranks_per_node)
