"""Stopped workers and a stopped fork server: seen at one look after another, continued once, then replaced.

A worker counts as stopped while it is in state T or t (SIGSTOP, SIGTSTP, a debugger), or all that its task has started
is, and none of them uses CPU time. Of a task of ranks one stopped process (state T) is enough: the others wait for
it in loops that use CPU time; so it is with commands that run here for tasks of other nodes. A worker that waits for a
file system (state D) is named and left alone: it goes on by itself, and to kill it would not end it sooner.
"""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import NamedTuple

from flow_core.remote.processes import STOPPED, UNINTERRUPTIBLE, Process, Table, below, look, send, table
from flow_executors.manager.fork_client import ForkServerClient
from flow_executors.manager.manager_core import WorkerEntry

LOOKS = 8
"""Looks within the time after which a worker is replaced."""
# Bounds in seconds of the pause between two looks: each reads all of /proc.
_SHORTEST_S, _LONGEST_S = 0.5, 15.0
# Pauses without a look after which this process was stopped itself, as when a whole job is suspended.
_MISSED = 3


class Observation(NamedTuple):
    """What was seen of a worker.

    Attributes:
        rank: Its number. Of a command for a task of another node: less than 0, see ``number_of_command``.
        pid: Its process.
        key: The task that it runs, -1 for none.
        state: Its state, or that of all its task's processes where they are stopped.
        ticks: CPU time that it and its task's processes have used, in any unit.
        stopped: The stopped processes, itself among them or not.
        which: The first of them in words, where it is one of a task of ranks.
    """

    rank: int
    pid: int
    key: int
    state: str
    ticks: int
    stopped: tuple[int, ...] = ()
    which: str = ""


class Act(Enum):
    """What is to be done about a worker."""

    CONTINUE = 0
    """Send SIGCONT to its stopped processes."""
    REPLACE = 1
    """Kill it; its task is lost."""
    NAME = 2
    """Report that it waits in the kernel."""


class Finding(NamedTuple):
    """What is to be done about which worker, and for how many seconds it has been stopped."""

    act: Act
    sight: Observation
    for_s: float


@dataclass(slots=True)
class _Case:
    pid: int
    key: int
    state: str
    ticks: int
    since: float
    named: bool = False


NO_COMMANDS: Mapping[int, int] = MappingProxyType({})
"""That nothing runs for tasks of other nodes."""


def number_of_command(pid: int) -> int:
    """Return the number of a command that runs here for a task of another node, or from that its process id."""
    return -pid


def pause_s(bound_s: float) -> float:
    """Return how many seconds there are between two looks."""
    return min(_LONGEST_S, max(_SHORTEST_S, bound_s / LOOKS))


class StoppedWorkers:
    """Which workers have been stopped for how long. One thread.

    Args:
        bound_s: Seconds after which one that does not go on is replaced; it is sent SIGCONT after half of them.
    """

    def __init__(self, bound_s: float) -> None:
        self.bound_s = bound_s
        self._cases: dict[int, _Case] = {}
        self._continued: dict[int, tuple[int, int]] = {}  # rank -> pid and key that was told to go on
        self._last: float | None = None

    def look(self, sights: Sequence[Observation], now: float) -> list[Finding]:
        """Take in what all workers look like now; return what is to be done."""
        if self._last is not None and now - self._last > _MISSED * pause_s(self.bound_s):
            self._cases.clear()  # this process was stopped, too: as when a whole job is suspended
        self._last = now
        self._cases = {sight.rank: self._case(sight, now) for sight in sights if sight.stopped or sight.state == "D"}
        found = (self._finding(sight, self._cases[sight.rank], now) for sight in sights if sight.rank in self._cases)
        return [finding for finding in found if finding is not None]

    def _case(self, sight: Observation, now: float) -> _Case:
        case = self._cases.get(sight.rank)
        # Any CPU time, another state or another task begins a new case: the worker has gone on.
        same = case is not None and (case.pid, case.key, case.state, case.ticks) == sight[1:5]
        return case if same and case is not None else _Case(*sight[1:5], now)

    def _finding(self, sight: Observation, case: _Case, now: float) -> Finding | None:
        for_s = now - case.since
        # In state D: named once, and left alone.
        if not sight.stopped:
            if for_s < self.bound_s or case.named:
                return None
            case.named = True
            return Finding(Act.NAME, sight, for_s)
        who = sight.pid, sight.key
        if for_s >= self.bound_s:
            del self._cases[sight.rank]
            return Finding(Act.REPLACE, sight, for_s)
        if for_s >= self.bound_s / 2 and self._continued.get(sight.rank) != who:
            self._continued[sight.rank] = who
            return Finding(Act.CONTINUE, sight, for_s)
        return None


class StoppedForkServer:
    """Silence of the fork server, which is asked again and again, against a bound in seconds. One thread."""

    def __init__(self, bound_s: float) -> None:
        self.bound_s = bound_s
        self._asked: float | None = None
        self._last: float | None = None

    def asked(self, now: float) -> None:
        """Note that the fork server was asked for a sign of life."""
        if self._last is not None and now - self._last > _MISSED * pause_s(self.bound_s):
            self._asked = None  # this process was stopped: nobody is silent by that
        self._last = now
        if self._asked is None:
            self._asked = now

    def answered(self) -> None:
        """Note that the fork server has answered: its silence is over."""
        self._asked = None

    def for_s(self, now: float) -> float:
        """Return for how long it has not answered."""
        return 0.0 if self._asked is None else now - self._asked


log = logging.getLogger("flow.manager")


class WorkerHealth:
    """Looks now and then. One thread, nothing blocks.

    Args:
        fork server: Is asked for signs of life, too.
        replace: Called with rank and reason for a worker that is to be killed.
        notice: Called with what the log of the run should have.
        bound_s: Seconds after which one that is stopped, or silent, is replaced.
    """

    def __init__(
        self,
        fork_client: ForkServerClient,
        replace: Callable[[int, str], None],
        notice: Callable[[str], None],
        bound_s: float,
    ) -> None:
        self._fork_client = fork_client
        self._replace = replace
        self._notice = notice
        self._stopped = StoppedWorkers(bound_s)
        self._silence = StoppedForkServer(bound_s)
        self.due = 0.0
        """When to look next."""

    def bound(self, bound_s: float) -> None:
        """Set the seconds after which a stopped worker, or a silent fork server, is replaced."""
        self._stopped.bound_s = self._silence.bound_s = bound_s

    def answered(self) -> None:
        """The fork server has answered."""
        self._silence.answered()

    def look(
        self,
        workers: Mapping[int, WorkerEntry],
        now: float,
        of_ranks: Collection[int] = (),
        commands: Mapping[int, int] = NO_COMMANDS,
    ) -> str:
        """Look; return why the fork server is of no use any more, or nothing.

        Args:
            workers: The workers, by rank.
            now: The time.
            of_ranks: Keys of the tasks of ranks among those that run here.
            commands: pid -> key of what runs here for tasks of ranks of other nodes.
        """
        pause = pause_s(self._stopped.bound_s)
        self.due = now + pause
        sights = _sights(workers, now - pause, of_ranks)
        if commands:
            sights += _of_commands(commands)
        for finding in self._stopped.look(sights, now):
            self._act(finding)
        return self._look_at_fork_server(now)

    def _act(self, finding: Finding) -> None:
        act, sight, for_s = finding
        who = f"worker {sight.rank} (pid {sight.pid})" if sight.rank >= 0 else "a task of another node"
        if act is Act.NAME:
            self._notice(f"{who} has waited in the kernel (state D) for {for_s:.0f} s: does a file system hang?")
            return
        where = "" if sight.pid in sight.stopped else ", all that its task has started"
        if sight.which:
            where = f", {sight.which} of its ranks"
        what = f"stopped (state {sight.state}{where}) for {for_s:.1f} s"
        if act is Act.CONTINUE:
            self._notice(f"{who} has been {what}: told to go on")
            send(sight.stopped, signal.SIGCONT)
        else:
            end = "it is replaced" if sight.rank >= 0 else "it is lost"
            self._notice(f"{who} has been {what}, though it was told to go on: {end}")
            self._replace(sight.rank, f"was {what}, and was killed")

    def _look_at_fork_server(self, now: float) -> str:
        silent_s, bound_s = self._silence.for_s(now), self._silence.bound_s
        if silent_s >= bound_s:
            send((self._fork_client.pid,), signal.SIGKILL)
            return f"the fork server of the workers has not answered for {silent_s:.1f} s and was killed"
        if silent_s:
            process = look(self._fork_client.pid)
            if process is not None and process.stopped:
                self._notice(f"the fork server of the workers is stopped (state {process.state}): told to go on")
                send((self._fork_client.pid,), signal.SIGCONT)
        self._silence.asked(now)
        self._fork_client.ask()
        return ""


def _sights(workers: Mapping[int, WorkerEntry], before: float, of_ranks: Collection[int]) -> list[Observation]:
    """Look at all workers; at what their tasks have started only where a task has run since ``before``."""
    found, processes = [], None
    for worker in workers.values():
        process = look(worker.pid)
        if process is None or worker.termination is not None:
            continue
        key = next(iter(worker.held), -1)
        if process.stopped or process.state == UNINTERRUPTIBLE:
            stopped = (worker.pid,) if process.stopped else ()
            found.append(Observation(worker.rank, worker.pid, key, process.state, process.ticks, stopped))
        elif key >= 0 and worker.since <= before:
            processes = table() if processes is None else processes
            sight = _waiting(worker, key, process.ticks, processes)
            if sight is None and key in of_ranks:
                sight = _of_ranks(worker.rank, worker.pid, key, below((worker.pid,), processes))
            if sight is not None:
                found.append(sight)
    return found


def _waiting(worker: WorkerEntry, key: int, ticks: int, processes: Table) -> Observation | None:
    """Return the sight of a worker whose task has started others that are all stopped; None where it is not so."""
    started = below((worker.pid,), processes)
    if not started or not all(one.state in STOPPED for one in started):
        return None
    ticks += sum(one.ticks for one in started)
    return Observation(worker.rank, worker.pid, key, started[0].state, ticks, tuple(one.pid for one in started))


def _of_ranks(rank: int, pid: int, key: int, processes: Sequence[Process]) -> Observation | None:
    """Return the sight of processes of a task of ranks of which one or more are stopped; None where none is."""
    # Not state t: somebody looks at one rank by a debugger.
    stopped = [one for one in processes if one.state == "T"]
    if not stopped:
        return None
    which = f"process {stopped[0].pid} ({stopped[0].name})"
    # Of the stopped ones alone: the others use CPU time as they wait.
    return Observation(rank, pid, key, "T", sum(one.ticks for one in stopped), tuple(one.pid for one in stopped), which)


def _of_commands(commands: Mapping[int, int]) -> list[Observation]:
    processes = table()
    found = (
        _of_ranks(number_of_command(pid), pid, key, [*filter(None, (processes.get(pid),)), *below((pid,), processes)])
        for pid, key in commands.items()
    )
    return [sight for sight in found if sight is not None]
