"""Variables of a task of ranks: those that its user reads, and those by which mpiexec comes through Flow. Pure.

No launcher is asked which one it is: each family reads variables of its own, so all are told where the agent is. An
``mpiexec`` that a command calls by itself goes the same way.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final

TYPE_CHECKING = False
if TYPE_CHECKING:
    from flow_executors.common.task_ranks import RankPlacement, RankRequest
    from flow_executors.mpi.launchers import RankCommand

PLACEMENT: Final = "FLOW_MPI_PLACEMENT"
"""Variable by which the manager tells a worker that its task has ranks, and all about them, as JSON: the last of the
task's variables."""
DIRECTORY: Final = "FLOW_MPI_DIRECTORY"
"""Directory of the task's own on its head node, for user alone; removed when the task has ended."""
TASK: Final = "FLOW_MPI_TASK"
"""Mark that all processes of one task of ranks have, on each of its nodes."""
PREFIX: Final = "FLOW_MPI_PREFIX"
AGENT_FILE: Final = "flow-on"
SOCKET_FILE: Final = "agent"
HOSTFILE: Final = "hosts"

_LOCAL: Final = frozenset(("HOSTNAME", "HOST", "TMPDIR", "TMP", "TEMP", "XDG_RUNTIME_DIR", "DISPLAY", "SSH_CONNECTION"))
# Those of devices are each node's own, and those of the scheduler say who is who on a node. FLOW_WORKER_PID is the mark
# of a process of another node: here it could be some other worker's.
_OF_WORKER: Final = ("FLOW_WORKER_", "PARSL_WORKER_")
_LOCAL_BEGIN: Final = (*_OF_WORKER, "SLURM", "PBS_", "SGE_", "LSB_", "CUDA_VISIBLE", "ROCR_VISIBLE", "ZE_AFFINITY")
_SECRET: Final = "FLOW_SECRET_"


def described(placement: RankPlacement, request: RankRequest, launcher: str) -> str:
    """Return what a worker is told of its task's ranks, as text for ``read``."""
    places = [[place.manager, place.node, place.ranks, place.slots] for place in placement.places]
    asked = [request.nodes, request.ranks_per_node, request.ranks, request.cores_per_rank, request.gpus_per_rank]
    return json.dumps([places, asked, launcher], separators=(",", ":"))


def read(text: str) -> tuple[RankPlacement, RankRequest, str]:
    """Return placement, request and launcher of ``described``."""
    # Not at the top: agents, which are started while mpiexec waits, need the names alone.
    from flow_executors.common.task_ranks import RankPlace, RankPlacement, RankRequest

    places, (nodes, each, ranks, cores, gpus), launcher = json.loads(text)
    placement = RankPlacement(tuple(RankPlace(*place) for place in places))
    return placement, RankRequest(nodes, each, ranks, cores, gpus), launcher


def variables_of(
    placement: RankPlacement, request: RankRequest, command: RankCommand, directory: str
) -> dict[str, str]:
    """Return the variables that a task of ranks has beside those of all tasks."""
    places = placement.places
    counts = [place.ranks for place in places]
    agent, hostfile = f"{directory}/{AGENT_FILE}", f"{directory}/{HOSTFILE}"
    variables = {
        PREFIX: command.text,
        "FLOW_MPI_LAUNCHER": command.launcher,
        "FLOW_MPI_RANKS": str(sum(counts)),
        "FLOW_MPI_NODES": ",".join(place.node for place in places),
        "FLOW_MPI_NODE_COUNT": str(len(places)),
        "FLOW_MPI_RANKS_PER_NODE": str(counts[0]) if len(set(counts)) == 1 else ",".join(map(str, counts)),
        "FLOW_MPI_HOSTFILE": hostfile,
        DIRECTORY: directory,
        **_through(agent),
        **command.variables,
    }
    # As Parsl calls them, of which programs run unchanged.
    kind = command.launcher if command.launcher in ("srun", "aprun") else "mpiexec"
    variables |= {
        "PARSL_MPI_PREFIX": command.text,
        f"PARSL_{kind.upper()}_PREFIX": command.text,
        "PARSL_MPI_NODELIST": variables["FLOW_MPI_NODES"],
        "PARSL_NUM_NODES": variables["FLOW_MPI_NODE_COUNT"],
        "PARSL_NUM_RANKS": variables["FLOW_MPI_RANKS"],
        "PARSL_RANKS_PER_NODE": variables["FLOW_MPI_RANKS_PER_NODE"],
    }
    if request.cores_per_rank is not None:
        cores = str(max(1, int(request.cores_per_rank)))
        variables |= {"FLOW_MPI_CORES_PER_RANK": cores, "OMP_NUM_THREADS": cores}
    if command.launcher in ("srun", "aprun", "jsrun"):
        return variables
    # What a plain "mpiexec -n 2" of the command's own takes as its hosts.
    return variables | {
        "OMPI_MCA_orte_default_hostfile": hostfile,
        "PRTE_MCA_prte_default_hostfile": hostfile,
        "HYDRA_HOST_FILE": hostfile,
        "I_MPI_HYDRA_HOST_FILE": hostfile,
    }


def _through(agent: str) -> dict[str, str]:
    """Return what has every mpiexec start its daemons by the agent, and leaves nodes and CPUs to Flow."""
    return {
        # Open MPI up to 4. Daemons stay below who started them, all are started from the head node, and ranks of
        # several tasks on one node are not all bound to its first cores.
        "OMPI_MCA_plm": "rsh",
        "OMPI_MCA_plm_rsh_agent": agent,
        "OMPI_MCA_plm_rsh_no_tree_spawn": "1",
        "OMPI_MCA_orte_leave_session_attached": "1",
        "OMPI_MCA_ras": "^slurm,gridengine,tm,lsf",
        "OMPI_MCA_hwloc_base_binding_policy": "none",
        # Open MPI 5 (PRRTE).
        "PRTE_MCA_plm": "ssh",
        "PRTE_MCA_plm_ssh_agent": agent,
        "PRTE_MCA_plm_ssh_no_tree_spawn": "1",
        "PRTE_MCA_prte_leave_session_attached": "1",
        "PRTE_MCA_ras": "^slurm,gridengine,pbs,lsf",
        "PRTE_MCA_hwloc_default_binding_policy": "none",
        # MPICH and what comes of it (Hydra).
        "HYDRA_LAUNCHER": "rsh",
        "HYDRA_LAUNCHER_EXEC": agent,
        "HYDRA_RMK": "user",
        # Intel MPI.
        "I_MPI_HYDRA_BOOTSTRAP": "rsh",
        "I_MPI_HYDRA_BOOTSTRAP_EXEC": agent,
        "I_MPI_HYDRA_RMK": "user",
        "I_MPI_PIN": "0",
    }


def of_files(files: str, memory: str) -> dict[str, str]:
    """Return what has Open MPI keep its files in these directories of a node; empty: where it likes.

    A rank that is killed leaves them, so they are to be removed with the task.
    """
    made: dict[str, str] = {}
    if files:
        made |= {"OMPI_MCA_orte_tmpdir_base": files, "PRTE_MCA_prte_tmpdir_base": files}
    if memory:
        made |= {"OMPI_MCA_btl_vader_backing_directory": memory, "OMPI_MCA_btl_sm_backing_directory": memory}
    return made


def of_daemon(sent: Mapping[str, str], here: Mapping[str, str], devices: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a daemon: that of the task's head, but for what belongs to a node.

    Args:
        sent: The environment in which mpiexec called the agent.
        here: That of the manager of this node.
        devices: What names the accelerators that are kept here for the task.
    """
    made = {name: value for name, value in sent.items() if not _of_node(name)}
    made |= {name: value for name, value in here.items() if _of_node(name) and not name.startswith(_OF_WORKER)}
    return {name: value for name, value in made.items() if not name.startswith(_SECRET)} | dict(devices)


def _of_node(name: str) -> bool:
    return name in _LOCAL or name.startswith(_LOCAL_BEGIN)
