"""The processes that belong to one worker: its session, what its task has started, and daemons that left both."""

from __future__ import annotations

import os
import signal
from collections.abc import Collection

from flow_core.remote.processes import WORKER_PID, Process, Table, Tree, below, carries, send, table

_NOBODY = 1 << 62  # clock ticks since boot: no process starts later


def members(session: int, processes: Table) -> list[Process]:
    """Return the processes of a session, its leader first.

    Killed in this order, no worker sees a process of its task die, which it would report as the task's failure.
    """
    return sorted((one for one in processes.values() if one.session == session), key=lambda one: one.pid != session)


def tree_of(pid: int, name: str, since: int | None, siblings: Collection[int], *, dead: bool = False) -> Tree:
    """Return what belongs to a worker of the calling process, the subreaper of all workers.

    Args:
        pid: The worker.
        name: What it calls itself, and those that it forked.
        since: Clock tick of when its task began; what daemons of earlier tasks have in hand is not meant. None: it
            runs none.
        siblings: All workers there are; looked at again at each look.
        dead: Nothing is left of its session.
    """
    mark = (os.fsencode(f"{WORKER_PID}={pid}"),)
    return Tree(
        lambda processes: [] if dead else members(pid, processes),
        lambda one: one.pid not in siblings and (one.name == name or carries(one.pid, mark)),
        _NOBODY if since is None else since,
        (os.getpid(),),
    )


def kill_below(root: int) -> None:
    """Kill all that came from a process, but not the process."""
    send((one.pid for one in below((root,), table())), signal.SIGKILL)


def kill_session(session: int) -> None:
    """Kill every process of a session, its leader first."""
    send((one.pid for one in members(session, table())), signal.SIGKILL)
