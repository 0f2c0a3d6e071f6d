"""A task of ranks in its worker: finds the launcher, makes the task's variables, and says who was killed.

Standard library and the leaf only, as all that workers load.
"""

from __future__ import annotations

import base64
import os
import pickle
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

from flow_core.errors import AppException
from flow_core.remote.bash import BashStep
from flow_core.remote.processes import carries, end_task_of_worker, table, ticks_ago
from flow_core.remote.ranks import RanksNotBegun, RanksStep
from flow_core.remote.run import with_variables
from flow_core.starting import starting
from flow_executors.mpi import rank_files
from flow_executors.mpi.environment import (
    DIRECTORY,
    HOSTFILE,
    PLACEMENT,
    TASK,
    of_files,
    read,
    variables_of,
)
from flow_executors.mpi.last_words import death_told, launcher_killed
from flow_executors.mpi.launchers import AUTO, FUNCTION, MPIEXEC, RankCommand, command_of, kind_of_mpiexec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from flow_core.interfaces.call import TaskSpec, TaskStep
    from flow_executors.mpi.launchers import Prefix

_ANSWER_S = 30.0  # seconds that mpiexec has to tell its version
_RANKS = frozenset((b"PMIX_RANK", b"OMPI_COMM_WORLD_RANK", b"PMI_RANK"))
_OTHERS = ("srun", "aprun", "jsrun")
_OF_MPIEXEC = frozenset(("openmpi", "mpich", "intelmpi"))
_kinds: dict[tuple[str, float], str] = {}


class RankKilled(Exception):
    """A rank or a daemon of a task was killed from outside, or none began: the try is lost, as with a worker.

    Attributes:
        node: Where; empty where the launcher does not say.
        reason: How, in words.
    """

    def __init__(self, node: str, reason: str) -> None:
        super().__init__(reason)
        self.node = node
        self.reason = reason

    def packed_loss(self) -> bytes:
        """Return it as the outcome of the try."""
        from flow_core.interfaces.outcome import Loss, LossKind, Place
        from flow_executors.wire.messages import pack_loss

        node = self.node or os.uname().nodename
        block = os.environ.get("FLOW_WORKER_BLOCK_ID", "")
        where = f"on node {node}" if self.node else f"(mpiexec ran on node {node})"
        return pack_loss(Loss(LossKind.WORKER, Place("", block, node), reason=f"{self.reason} {where}"))


def run_on_ranks(
    call: Callable[[], object], variables: Mapping[str, str], spec: TaskSpec, steps: Sequence[TaskStep]
) -> object:
    """Call something with the variables of a task of ranks, and return its result.

    Raises:
        AppException: no launcher was found here, or it cannot be told where the ranks are.
        RankKilled: the launcher says that a rank or a daemon was killed, or the ranks have not begun in time.
    """
    command_line = bool(steps) and isinstance(steps[-1], BashStep)
    made = _variables(variables, {**os.environ, **variables, **dict(spec.environment)}, command_line)
    began = time.monotonic()
    try:
        value = _on_all_cpus(partial(with_variables, call, tuple(made.items())))
    except Exception as error:
        _end_rest(made[TASK], began)
        if isinstance(error, RanksNotBegun):
            raise RankKilled("", str(error)) from error
        tail = getattr(error, "stderr_tail", "")
        death = death_told(tail, getattr(error, "exitcode", None)) if isinstance(tail, str) else None
        if death is None and (command_line or (steps and isinstance(steps[-1], RanksStep))):
            death = launcher_killed(getattr(error, "exitcode", None), command_line)
        if death is None:
            _hint(error, variables, spec, command_line)
            raise
        raise RankKilled(death.node, death.how) from error
    ranks_left = _end_rest(made[TASK], began)
    # That of Open MPI 5 exits with 0 when it has lost a daemon. Where ranks have returned a result, what is left are
    # processes that they have forked.
    if ranks_left and not (steps and isinstance(steps[-1], RanksStep)):
        raise RankKilled("", "the launcher ended before its ranks: it has lost one of its daemons")
    return value


def _hint(error: Exception, given: Mapping[str, str], spec: TaskSpec, command_line: bool) -> None:
    """Add a note to the failure of a launcher where the option names another MPI than the mpiexec here is of."""
    if not hasattr(error, "exitcode"):  # raised by a rank: its launcher has started
        return
    option = read(given[PLACEMENT])[2]
    environment = {**os.environ, **given, **dict(spec.environment)}
    found = _mpiexec(environment, command_line)[0] if option in _OF_MPIEXEC else None
    kind = _kind(found, environment) if found else ""
    if kind and kind != option:
        error.add_note(
            f"mpi_launcher is {option!r}, and {found} on node {os.uname().nodename} is that of {kind!r}: leave "
            "mpi_launcher out, or have worker_init load the MPI that it names"
        )


def _on_all_cpus(call: Callable[[], object]) -> object:
    """Call something on all CPUs of the manager: the ranks of this node are more than its one worker (cpu_affinity)."""
    mine = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, os.sched_getaffinity(os.getppid()))
    except OSError:  # the fork server has just ended, and this worker is about to
        return call()
    try:
        return call()
    finally:
        os.sched_setaffinity(0, mine)


def _end_rest(mark: str, began: float) -> bool:
    """End what a task has left of itself on this node; return whether ranks were among it."""
    variable, since = (os.fsencode(f"{TASK}={mark}"),), ticks_ago(time.monotonic() - began + 1.0)
    left = [one.pid for one in table().values() if one.start >= since and carries(one.pid, variable)]
    if not left:
        return False
    ranks = any(_is_rank(pid) for pid in left)
    end_task_of_worker(time.monotonic() - began)
    return ranks


def _is_rank(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/environ", "rb") as environment:
            names = {entry.partition(b"=")[0] for entry in environment.read().split(b"\0")}
    except OSError:
        return False
    return not names.isdisjoint(_RANKS)


def _variables(given: Mapping[str, str], environment: Mapping[str, str], command_line: bool) -> dict[str, str]:
    """Return all variables of a task, and write the file of its hosts."""
    placement, request, option = read(given[PLACEMENT])
    directory = given[DIRECTORY]
    launcher, path = _chosen(option, environment, command_line)
    hostfile = os.path.join(directory, HOSTFILE)
    command = command_of(launcher, placement, hostfile, request.cores_per_rank, request.gpus_per_rank)
    if path:
        command = _by_path(command, path)
    with open(hostfile, "w") as file:
        file.write(command.hostfile)
    others = {name: value for name, value in given.items() if name != PLACEMENT}
    # The user's own variables count more than what has a launcher come through Flow.
    wanted = variables_of(placement, request, command, directory)
    mark = os.path.basename(directory)
    files = {name: value for name, value in of_files(*rank_files.found(mark)).items() if name not in environment}
    return others | {TASK: mark} | files | wanted


def _by_path(command: RankCommand, path: str) -> RankCommand:
    return replace(command, words=(path, *command.words[1:]))


def _chosen(option: str, environment: Mapping[str, str], command_line: bool) -> tuple[str | Prefix, str]:
    """Return the launcher, and the path of its mpiexec where that is not the one that PATH leads to."""
    if option.startswith(FUNCTION):
        function: Prefix = pickle.loads(base64.b64decode(option.removeprefix(FUNCTION)))
        return function, ""
    found, path = _mpiexec(environment, command_line)
    if option != AUTO:
        return option, path if option in _OF_MPIEXEC else ""
    if found is not None:
        kind = _kind(found, environment)
        if kind:
            return kind, path
    for name in _OTHERS:
        if shutil.which(name, path=environment.get("PATH")) and (name != "srun" or "SLURM_JOB_ID" in environment):
            return name, ""
    known = f"{found} is of no MPI that is known" if found else "there is no mpiexec"
    raise AppException(
        f"no launcher of MPI was found on node {os.uname().nodename}: {known}, and no srun of a job, aprun or jsrun in "
        "PATH. Load MPI in the provider's worker_init, or name the launcher by the executor's mpi_launcher"
    )


def _mpiexec(environment: Mapping[str, str], command_line: bool) -> tuple[str | None, str]:
    """Return the path of the mpiexec for a task, and that path again where it is not the one that PATH leads to."""
    beside = os.path.join(os.path.dirname(sys.executable), MPIEXEC)
    on_path = shutil.which(MPIEXEC, path=environment.get("PATH"))
    # mpi4py takes the library of its own environment, commands the one of PATH.
    candidates = [on_path, beside] if command_line else [beside, on_path]
    found = next((path for path in candidates if path and os.access(path, os.X_OK)), None)
    return found, "" if found is None or found == on_path else found


def _kind(path: str, environment: Mapping[str, str]) -> str:
    """Return which launcher an mpiexec is. Asked once a worker."""
    try:
        key = path, os.stat(path).st_mtime
        if key not in _kinds:
            with starting():
                asked = subprocess.Popen(
                    [path, "--version"],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    env=dict(environment),
                )
            try:
                said, _ = asked.communicate(timeout=_ANSWER_S)
            finally:
                asked.kill()
                asked.wait()
            _kinds[key] = kind_of_mpiexec(said.decode(errors="replace"))
        return _kinds[key]
    except (OSError, subprocess.TimeoutExpired):
        return ""
