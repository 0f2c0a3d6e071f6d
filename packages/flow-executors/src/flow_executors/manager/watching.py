"""Looking at the workers' processes and at the nursery's, and doing what is to be done about those that are stopped."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable, Mapping

from flow_core.remote.processes import STOPPED, UNINTERRUPTIBLE, Table, below, look, send, table
from flow_executors.manager.nursery import Nursery
from flow_executors.manager.records import Worker
from flow_executors.manager.stopped import Act, Finding, Sight, Silence, Stopped, pause_s

log = logging.getLogger("flow.manager")


class Watching:
    """Looks now and then. One thread, nothing blocks.

    Args:
        nursery: Is asked for signs of life, too.
        replace: Called with rank and reason for a worker that is to be killed.
        notice: Called with what the log of the run should have.
        bound_s: Seconds after which one that is stopped, or silent, is replaced.
    """

    def __init__(
        self, nursery: Nursery, replace: Callable[[int, str], None], notice: Callable[[str], None], bound_s: float
    ) -> None:
        self._nursery = nursery
        self._replace = replace
        self._notice = notice
        self._stopped = Stopped(bound_s)
        self._silence = Silence(bound_s)
        self.due = 0.0
        """When to look next."""

    def bound(self, bound_s: float) -> None:
        """Change the bound."""
        self._stopped.bound_s = self._silence.bound_s = bound_s

    def answered(self) -> None:
        """The nursery has answered."""
        self._silence.answered()

    def look(self, workers: Mapping[int, Worker], now: float) -> str:
        """Look; return why the nursery is of no use any more, or nothing."""
        pause = pause_s(self._stopped.bound_s)
        self.due = now + pause
        for finding in self._stopped.look(_sights(workers, now - pause), now):
            self._act(finding)
        return self._look_at_nursery(now)

    def _act(self, finding: Finding) -> None:
        act, sight, for_s = finding
        who = f"worker {sight.rank} (pid {sight.pid})"
        if act is Act.NAME:
            self._notice(f"{who} has waited in the kernel (state D) for {for_s:.0f} s: does a file system hang?")
            return
        where = "" if sight.pid in sight.stopped else ", all that its task has started"
        what = f"stopped (state {sight.state}{where}) for {for_s:.1f} s"
        if act is Act.CONTINUE:
            self._notice(f"{who} has been {what}: told to go on")
            send(sight.stopped, signal.SIGCONT)
        else:
            self._notice(f"{who} has been {what}, though it was told to go on: it is replaced")
            self._replace(sight.rank, f"was {what}, and was killed")

    def _look_at_nursery(self, now: float) -> str:
        silent_s, bound_s = self._silence.for_s(now), self._silence.bound_s
        if silent_s >= bound_s:
            send((self._nursery.pid,), signal.SIGKILL)
            return f"the nursery of the workers has not answered for {silent_s:.1f} s and was killed"
        if silent_s:
            process = look(self._nursery.pid)
            if process is not None and process.stopped:
                self._notice(f"the nursery of the workers is stopped (state {process.state}): told to go on")
                send((self._nursery.pid,), signal.SIGCONT)
        self._silence.asked(now)
        self._nursery.ask()
        return ""


def _sights(workers: Mapping[int, Worker], before: float) -> list[Sight]:
    """Look at all workers; at what their tasks have started only where a task has run since ``before``."""
    found, processes = [], None
    for worker in workers.values():
        process = look(worker.pid)
        if process is None or worker.doom is not None:
            continue
        key = next(iter(worker.held), -1)
        if process.stopped or process.state == UNINTERRUPTIBLE:
            stopped = (worker.pid,) if process.stopped else ()
            found.append(Sight(worker.rank, worker.pid, key, process.state, process.ticks, stopped))
        elif key >= 0 and worker.since <= before:
            processes = table() if processes is None else processes
            sight = _waiting(worker, key, process.ticks, processes)
            if sight is not None:
                found.append(sight)
    return found


def _waiting(worker: Worker, key: int, ticks: int, processes: Table) -> Sight | None:
    """Return the sight of a worker whose task has started others that are all stopped; None where it is not so."""
    started = below((worker.pid,), processes)
    if not started or not all(one.state in STOPPED for one in started):
        return None
    ticks += sum(one.ticks for one in started)
    return Sight(worker.rank, worker.pid, key, started[0].state, ticks, tuple(one.pid for one in started))
