"""Launchers of MPI: which one a node has, and how each is told where the ranks of a task are. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from flow_core.errors import AppException, SerializationError
from flow_executors.common.task_ranks import RankPlacement

MPIEXEC: Final = "mpiexec"
LAUNCHERS: Final = ("openmpi", "mpich", "intelmpi", "srun", "aprun", "jsrun")
"""Launchers by the names of the option ``mpi_launcher``, beside ``auto`` and functions of the user's own."""
AUTO: Final = "auto"

FUNCTION: Final = "function:"
"""Begin of the option's text for managers where it is a function: a pickle by value in base64 follows."""
_LONGEST: Final = 60_000
"""Characters of that text, which is an argument of the managers' command: Linux takes 128 KiB."""

Prefix = Callable[[Sequence[str], Sequence[int]], "str | Sequence[str]"]
"""A function of the user's own: host names and ranks on each, to what stands before a program."""


@dataclass(frozen=True, slots=True)
class RankCommand:
    """What stands before a program to run it as the ranks of a task.

    Attributes:
        launcher: One of ``LAUNCHERS``, or ``function``.
        words: The command.
        hostfile: Content of the file of hosts, in the form that this launcher reads.
        variables: What the launcher reads from its environment beside that.
    """

    launcher: str
    words: tuple[str, ...]
    hostfile: str
    variables: Mapping[str, str]

    @property
    def text(self) -> str:
        """The command as a shell takes it."""
        return shlex.join(self.words)


def option_text(launcher: str | Prefix) -> str:
    """Return the option ``mpi_launcher`` as managers are told it.

    Raises:
        SerializationError: the function cannot be pickled, or is too long for a command line.
    """
    if isinstance(launcher, str):
        return launcher
    # Imported here: launchers are named in most cases.
    import base64

    from flow_core.remote import by_value

    text = FUNCTION + base64.b64encode(by_value.dumps(launcher)).decode()
    if len(text) > _LONGEST:
        raise SerializationError(
            f"the function given as mpi_launcher has {len(text)} characters when pickled, and at most {_LONGEST} go on "
            "the command line of a manager: put it into a module, and let it hold no data"
        )
    return text


def kind_of_mpiexec(version: str) -> str:
    """Return the launcher whose ``mpiexec --version`` printed this; empty where it is none that is known."""
    # Intel's is a Hydra, too, so it is asked for first.
    for launcher, signs in (
        ("intelmpi", ("Intel(R) MPI",)),
        ("openmpi", ("Open MPI", "OpenRTE", "PRRTE", "prterun")),
        ("mpich", ("HYDRA", "MPICH", "MVAPICH")),
    ):
        if any(sign in version for sign in signs):
            return launcher
    return ""


def command_of(
    launcher: str | Prefix,
    placement: RankPlacement,
    hostfile: str,
    cores_per_rank: float | None = None,
    gpus_per_rank: float = 0.0,
) -> RankCommand:
    """Return what starts the ranks of a task. ``hostfile`` is the path at which its content will lie.

    Raises:
        AppException: this launcher cannot be told where the ranks are; the message says why.
    """
    hosts = [place.node for place in placement.places]
    ranks = [place.ranks for place in placement.places]
    if not isinstance(launcher, str):
        return _of_function(launcher, hosts, ranks)
    cores = max(1, int(cores_per_rank or 1))
    made = _MAKERS[launcher](hosts, ranks, hostfile, cores, gpus_per_rank)
    return RankCommand(launcher, *made)


_Made = tuple[tuple[str, ...], str, dict[str, str]]


def _of_function(function: Prefix, hosts: Sequence[str], ranks: Sequence[int]) -> RankCommand:
    made: object = function(hosts, ranks)
    words = shlex.split(made) if isinstance(made, str) else made
    if not isinstance(words, (list, tuple)) or not words or not all(isinstance(word, str) for word in words):
        raise AppException(
            f"the function given as mpi_launcher returned {made!r} for hosts {list(hosts)}: it must return the command "
            "that stands before a program, as text or as a list of words"
        )
    return RankCommand("function", tuple(words), _lines(hosts, ranks, "{}:{}"), {})


def _lines(hosts: Sequence[str], ranks: Sequence[int], form: str) -> str:
    return "".join(f"{form.format(host, count)}\n" for host, count in zip(hosts, ranks, strict=True))


def _by_counts(hosts: Sequence[str], ranks: Sequence[int]) -> str:
    return ",".join(f"{host}:{count}" for host, count in zip(hosts, ranks, strict=True))


def _openmpi(hosts: Sequence[str], ranks: Sequence[int], hostfile: str, cores: int, gpus: float) -> _Made:
    words = (MPIEXEC, "-n", str(sum(ranks)), "-host", _by_counts(hosts, ranks))
    return words, _lines(hosts, ranks, "{} slots={}"), {}


def _mpich(hosts: Sequence[str], ranks: Sequence[int], hostfile: str, cores: int, gpus: float) -> _Made:
    words = (MPIEXEC, "-n", str(sum(ranks)), "-hosts", _by_counts(hosts, ranks))
    return words, _lines(hosts, ranks, "{}:{}"), {}


def _intelmpi(hosts: Sequence[str], ranks: Sequence[int], hostfile: str, cores: int, gpus: float) -> _Made:
    words = (MPIEXEC, "-n", str(sum(ranks)), "-machinefile", hostfile)
    return words, _lines(hosts, ranks, "{}:{}"), {}


# Variables of the managers' own step, by which srun would lay out the new one, too: its labels, its tasks on each node.
_OF_STEP: Final = (
    *("LABELIO", "DISTRIBUTION", "NNODES", "NODELIST", "NPROCS", "NTASKS", "NTASKS_PER_NODE", "TASKS_PER_NODE"),
    *("CPUS_PER_TASK", "MEM_PER_CPU", "MEM_PER_NODE"),
    *("STEP_NODELIST", "STEP_NUM_NODES", "STEP_NUM_TASKS", "STEP_TASKS_PER_NODE"),
)
_APART: Final = ("env", *(f"--unset=SLURM_{name}" for name in _OF_STEP))


def _srun(hosts: Sequence[str], ranks: Sequence[int], hostfile: str, cores: int, gpus: float) -> _Made:
    # --overlap, and memory that is not counted: the managers' own step has all of the job. --exact: two steps need not
    # have the whole node.
    words = [*_APART, "srun", "--overlap", "--exact", "--mem=0", f"--nodes={len(hosts)}", f"--ntasks={sum(ranks)}"]
    words += [f"--nodelist={','.join(hosts)}", f"--cpus-per-task={cores}"]
    if len(set(ranks)) == 1:
        words.append(f"--ntasks-per-node={ranks[0]}")
        return tuple(words), _one_a_rank(hosts, ranks), {}
    # Nodes with different numbers of ranks: Slurm reads a line a rank from this file.
    words.append("--distribution=arbitrary")
    return tuple(words), _one_a_rank(hosts, ranks), {"SLURM_HOSTFILE": hostfile}


def _one_a_rank(hosts: Sequence[str], ranks: Sequence[int]) -> str:
    return "".join(f"{host}\n" * count for host, count in zip(hosts, ranks, strict=True))


def _aprun(hosts: Sequence[str], ranks: Sequence[int], hostfile: str, cores: int, gpus: float) -> _Made:
    _only_even("aprun", ranks)
    nids = [host.removeprefix("nid").lstrip("0") or "0" for host in hosts]
    if not all(nid.isdecimal() for nid in nids):
        raise AppException(
            f"aprun names nodes by numbers, as in nid00012, and the nodes of this task are {', '.join(hosts)}: choose "
            "another mpi_launcher"
        )
    words = ("aprun", "-n", str(sum(ranks)), "-N", str(ranks[0]), "-d", str(cores), "-L", ",".join(nids))
    return words, _one_a_rank(hosts, ranks), {}


def _jsrun(hosts: Sequence[str], ranks: Sequence[int], hostfile: str, cores: int, gpus: float) -> _Made:
    _only_even("jsrun", ranks)
    # jsrun numbers the hosts of its allocation and takes no names: its resource sets come from whatever it has free.
    words = ["jsrun", f"--nrs={sum(ranks)}", f"--rs_per_host={ranks[0]}", "--tasks_per_rs=1", f"--cpu_per_rs={cores}"]
    if gpus:
        words.append(f"--gpu_per_rs={max(1, int(gpus))}")
    return tuple(words), _one_a_rank(hosts, ranks), {}


def _only_even(launcher: str, ranks: Sequence[int]) -> None:
    if len(set(ranks)) > 1:
        raise AppException(
            f"{launcher} starts the same number of ranks on each node, and this task has {list(ranks)}: ask for nodes "
            "and ranks_per_node instead of ranks"
        )


_MAKERS: Final[Mapping[str, Callable[[Sequence[str], Sequence[int], str, int, float], _Made]]] = {
    "openmpi": _openmpi,
    "mpich": _mpich,
    "intelmpi": _intelmpi,
    "srun": _srun,
    "aprun": _aprun,
    "jsrun": _jsrun,
}
