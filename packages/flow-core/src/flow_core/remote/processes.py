"""Processes of this machine as /proc shows them: whose child each is, since when, in what state; and ending many.

Linux only: where there is no /proc, nobody is found. Standard library only. Any thread.

A process is known by its id and its start together, since ids are given again. Who left its parents and its session
(a daemon) is still known by its environment, as long as it was not started with another one: see ``carries``.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Collection, Iterable, Mapping

DEAD = "ZX"
"""States of processes that have ended and that nobody has reaped."""
STOPPED = "Tt"
"""States of processes that run again only after SIGCONT, or when a debugger lets them."""
# Waits within the kernel, as for a disk: not even SIGKILL is taken until that ends.
UNINTERRUPTIBLE = "D"

GUARD_FAMILY = "FLOW_WORKER_GUARD"
"""Variable with a secret that the workers of one manager share: of it comes the name of the guard of containers."""
WORKER_PID = "FLOW_WORKER_PID"
"""Variable by which processes are known that a worker has started: its process id."""

GUARD = "flow-guard"
"""What the process calls itself that removes containers of who was killed: it outlives those, so it is below nobody."""

GRACE_S = 2.0
"""Seconds between SIGTERM and SIGKILL; less than a manager's own patience after a walltime."""
_AGAIN_S = 0.05  # seconds; the longest pause between looks, which begin at a few milliseconds and double
_SURE_S = 2.0  # seconds after SIGKILL; what lives longer is held by the kernel, and no signal helps


class Process:
    """One process at one moment.

    Attributes:
        pid: Its id.
        name: What it calls itself, 15 characters at most.
        state: One letter, as ps shows it.
        parent: Process id of its parent.
        group: Its process group.
        session: Its session.
        ticks: CPU time that it has used, in clock ticks.
        start: When it started, in clock ticks since the machine did.
    """

    __slots__ = ("group", "name", "parent", "pid", "session", "start", "state", "ticks")

    def __init__(self, line: bytes) -> None:
        """``line`` is /proc/PID/stat. Raises ValueError if it is not."""
        # The command's name may hold blanks and parentheses: fields are counted from the last one.
        pid, _, rest = line.partition(b" (")
        name, _, rest = rest.rpartition(b") ")
        # Fields are those of proc(5), less the first two: 11 and 12 are utime and stime, 19 is starttime.
        fields = rest.split(b" ", 20)
        self.pid = int(pid)
        self.name = name.decode(errors="replace")
        self.state = fields[0].decode()
        self.parent, self.group, self.session = int(fields[1]), int(fields[2]), int(fields[3])
        self.ticks = int(fields[11]) + int(fields[12])
        self.start = int(fields[19])

    @property
    def stopped(self) -> bool:
        """Whether it will not go on by itself."""
        return self.state in STOPPED


Table = Mapping[int, Process]
"""Living processes by id."""


def look(pid: int) -> Process | None:
    """Return a process, or None if there is none."""
    try:
        fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        # One read gives the line of one moment; it is shorter than this.
        return Process(os.read(fd, 1024))
    except (OSError, ValueError, IndexError):
        return None
    finally:
        os.close(fd)


def table() -> dict[int, Process]:
    """Return all living processes; the dead that nobody has reaped are left out."""
    try:
        names = os.listdir("/proc")
    except OSError:
        return {}
    # Processes may end between the two steps: those are None.
    found = (look(int(name)) for name in names if name.isdecimal())
    return {process.pid: process for process in found if process is not None and process.state not in DEAD}


def below(roots: Iterable[int], processes: Table, since: int = 0) -> list[Process]:
    """Return the living descendants of some processes, parents before children; the roots themselves are left out.

    Those that started before the clock tick ``since``, and guards of containers, are left out with all that is below
    them.
    """
    # One pass makes the index, so that the walk does not go through all processes for each parent.
    children: dict[int, list[Process]] = {}
    for process in processes.values():
        children.setdefault(process.parent, []).append(process)
    found: dict[int, Process] = {}
    waiting = [*roots]
    for parent in waiting:
        for child in children.get(parent, ()):
            if child.pid not in found and child.start >= since and child.name != GUARD:
                found[child.pid] = child
                waiting.append(child.pid)
    return [*found.values()]


def carries(pid: int, variables: Collection[bytes]) -> bool:
    """Say whether a process was started with all of some variables, as ``NAME=value``; False where that is secret."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as environment:
            entries = environment.read().split(b"\0")
    except OSError:
        return False
    return all(variable in entries for variable in variables)


def ticks_ago(seconds: float) -> int:
    """Return the clock tick of some seconds ago, to be compared with ``Process.start``."""
    # CLOCK_BOOTTIME counts as /proc does: also while the machine sleeps.
    per_s = os.sysconf("SC_CLK_TCK")
    return int((time.clock_gettime(time.CLOCK_BOOTTIME) - seconds) * per_s)


def send(pids: Iterable[int], *signals: int) -> int:
    """Send signals to processes, in the order given; return how many were there."""
    reached = 0
    for pid in pids:
        try:
            for signum in signals:
                os.kill(pid, signum)
            reached += 1
        except (ProcessLookupError, PermissionError):
            continue
    return reached


def end(members: Callable[[], Collection[int]], grace_s: float) -> bool:
    """End processes: SIGTERM (and SIGCONT, else a stopped one would not get it), and SIGKILL after a grace.

    Args:
        members: Returns those that are there now, asked again and again: they may start others.
        grace_s: Seconds between the two; 0 for SIGKILL at once.

    Returns:
        Whether all have ended; False for those that the kernel holds for longer than two seconds.
    """
    if grace_s > 0:
        send(members(), signal.SIGTERM, signal.SIGCONT)
        if _gone(members, time.monotonic() + grace_s):
            return True
    deadline = time.monotonic() + _SURE_S
    pause = 0.001
    while left := members():
        send(left, signal.SIGKILL)
        if time.monotonic() >= deadline:
            return False
        time.sleep(pause)
        pause = min(2 * pause, _AGAIN_S)
    return True


def _gone(members: Callable[[], Collection[int]], deadline: float) -> bool:
    pause = 0.005
    while members():
        if time.monotonic() >= deadline:
            return False
        time.sleep(pause)
        pause = min(2 * pause, _AGAIN_S)
    return True


class Tree:
    """The processes that came from something, also those that went away from it, as far as they can be known.

    What was found once stays known, whatever becomes of its parents. One thread.

    Args:
        members: Tells which processes are surely meant; asked at each look.
        marked: Tells whether a process that is below none of them carries a mark; asked once each. None: none does.
        since: Clock tick; processes that are no sure members count only if they started then or later.
        adopters: Who becomes the parent of orphans: only their children are asked for the mark. None: all are.
    """

    def __init__(
        self,
        members: Callable[[Table], Iterable[Process]],
        marked: Callable[[Process], bool] | None = None,
        since: int = 0,
        adopters: Collection[int] | None = None,
    ) -> None:
        self._members = members
        self._marked = marked
        self._since = since
        self._adopters = adopters
        self._asked: dict[tuple[int, int], bool] = {}
        self._known: dict[int, int] = {}

    def look(self, processes: Table | None = None) -> list[int]:
        """Return the process ids of those that live now, sure members first."""
        if processes is None:
            processes = table()
        found = {process.pid: process for process in self._members(processes)}
        for pid, start in self._known.items():
            process = processes.get(pid)
            # The same id with another start is another process.
            if process is not None and process.start == start:
                found.setdefault(pid, process)
        if self._marked is not None:
            found |= {one.pid: one for one in processes.values() if one.pid not in found and self._is_marked(one)}
        for process in below([*found], processes, self._since):
            found.setdefault(process.pid, process)
        self._known = {process.pid: process.start for process in found.values()}
        return [*found]

    def _is_marked(self, process: Process) -> bool:
        if process.start < self._since or not (self._adopters is None or process.parent in self._adopters):
            return False
        name = process.pid, process.start
        # Reading an environment is the dearest part of a look, so each process is asked once.
        if name not in self._asked:
            self._asked[name] = self._marked is not None and self._marked(process)
        return self._asked[name]


def end_task_of_worker(age_s: float) -> None:
    """End what a task has started ``age_s`` seconds ago or later, if the calling process is a worker of ours.

    A worker runs one task at a time, so all that came from it meanwhile is the task's. Elsewhere nothing is done:
    other tasks may run in the same process.
    """
    me = os.getpid()
    process = look(me)
    if process is not None and os.environ.get(WORKER_PID) == str(me):
        name, mark, since = process.name, (os.fsencode(f"{WORKER_PID}={me}"),), ticks_ago(age_s)
        started = Tree(
            lambda processes: below((me,), processes, since),
            lambda one: one.pid != me and (one.name == name or carries(one.pid, mark)),
            since,
            (os.getppid(),),
        )
        end(started.look, GRACE_S)
