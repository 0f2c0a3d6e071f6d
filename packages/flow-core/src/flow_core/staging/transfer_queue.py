"""Queue of transfers on the submit side: a number of each host at once, the others in turn."""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial

from flow_core.deadlines import Deadlines
from flow_core.errors import StagingError
from flow_core.futures.lean import when_done
from flow_core.guard import attribute
from flow_core.interfaces.staging import Staging
from flow_core.staging.batch import Batch, Moved, Moving, Work, urls_of

Hosts = tuple[str, ...]

_USUAL = 10  # tasks whose files are moved at once by methods that do not say how many they move
_AHEAD = 2  # more than a method says, which wait in it for those that it moves


class TransferQueue:
    """Starts work as long as less of its host is going on than may be, the rest as that ends. Any thread.

    ``limit`` is how much that is; None means what the methods say (``Staging.at_once``), and some more, so that a
    method has its next files when it has moved one.

    Never blocks. Work of several hosts has turns of its own, so that nothing waits for a host that it does not need.
    With ``apart`` methods that are not Flow's own are called by the thread of hooks: they may block, though they must
    not, for ``hook_timeout_s`` at most (None is for ever). Then the files count as not moved.
    """

    def __init__(
        self, limit: int | None, moved: Moved | None = None, *, apart: bool = False, hook_timeout_s: float | None = None
    ) -> None:
        self._isolated = apart
        self._hook_timeout_s = hook_timeout_s
        self.limit = limit
        self._moved = moved
        self._lock = threading.Lock()
        self._going: dict[Hosts, int] = {}
        self._waiting: dict[Hosts, deque[Batch]] = {}
        # Hosts where something may begin: only these are looked at, however many wait.
        self._to_look: deque[Hosts] = deque()
        self._beginning = False
        self._of_task: dict[int, list[Batch]] = {}
        self._numbers = itertools.count()
        self._timed: dict[int, Batch] = {}
        self._deadlines: Deadlines[int] = Deadlines("flow-staging-walltime", self._overdue, self._timed)
        self._closed = False
        self.on_begun: Callable[[], None] | None = None
        """Called whenever files begin to be moved; must be cheap."""

    def start(self, work: Work, walltime_s: float | None = None, who: str = "") -> Future[None]:
        """Move files; the future ends when all have been moved, with the first error if there was one. Never raises.

        Args:
            work: What moves them.
            walltime_s: So long it may take from its turn on, else the future ends with AppTimeout.
            who: The task, for messages.
        """
        batch = Batch(work, self._moved, walltime_s, who)
        with self._lock:
            closed = self._closed
            if not closed:
                self._of_task.setdefault(_task_of(batch), []).append(batch)
                self._waiting.setdefault(batch.hosts, deque()).append(batch)
                self._to_look.append(batch.hosts)
        # Outside of the lock, as everything that calls others is.
        if closed:
            batch.settle(_ended(work))
        else:
            self._go_on()
        return batch.future

    def most(self, work: Work) -> int:
        """Return how many tasks' work that is moved like this may be going on at once for its hosts."""
        if self.limit is not None:
            return self.limit
        return min([_most_of(method) for method, _ in work], default=_USUAL)

    def of_task(self, task_id: int) -> list[Moving]:
        """Return the files of a task that are being moved, and those that wait for their turn."""
        with self._lock:
            batches = list(self._of_task.get(task_id, ()))
        return [moving for batch in batches for moving in batch.moving()]

    def all(self) -> list[Moving]:
        """Return the files that are being moved, in the order in which that began."""
        with self._lock:
            batches = [batch for group in self._of_task.values() for batch in group if batch.since_ns is not None]
        return [moving for batch in sorted(batches, key=_since) for moving in batch.moving()]

    def cancel(self, task_id: int) -> None:
        """Stop moving the files of a task: what it needed them for has ended."""
        with self._lock:
            batches = list(self._of_task.get(task_id, ()))
        for batch in batches:
            batch.stop()

    def close(self) -> None:
        """Fail what has not begun, stop what has; nothing begins any more. Idempotent."""
        with self._lock:
            self._closed = True
            waiting, self._waiting = self._waiting, {}
            never = [batch for queue in waiting.values() for batch in queue]
            for batch in never:
                self._forget(batch)
            going = [batch for batches in self._of_task.values() for batch in batches]
        # Before anything is stopped, so that no walltime passes meanwhile.
        self._deadlines.close()
        for batch in going:
            batch.stop()
        for batch in never:
            batch.settle(_ended(batch.work))

    # -- how

    def _go_on(self) -> None:
        """Begin what may begin. One thread at a time, in a loop: work that ends at once must not nest."""
        with self._lock:
            if self._beginning:  # by another thread, or further down this one's stack; that one looks again
                return
            self._beginning = True
        while True:
            with self._lock:
                batch = self._next()
                if batch is None:
                    self._beginning = False
                    return
                number = next(self._numbers)
                if batch.walltime_s is not None:
                    self._timed[number] = batch
            if batch.walltime_s is not None:
                when_done(batch.future, partial(self._in_time, number))
                self._deadlines.add(number, batch.walltime_s)
            if self.on_begun is not None:
                self.on_begun()
            batch.begin(self._finished, apart=self._isolated, hook_timeout_s=self._hook_timeout_s)

    def _next(self) -> Batch | None:
        while self._to_look:
            hosts = self._to_look[0]
            waiting = self._waiting.get(hosts)
            # The host stays in front of the queue, since more of its work may begin.
            going = self._going.get(hosts, 0)
            if waiting and going < self._most_for(waiting[0]):
                self._going[hosts] = going + 1
                return waiting.popleft()
            self._to_look.popleft()
            if not waiting:
                self._waiting.pop(hosts, None)
        return None

    def _most_for(self, batch: Batch) -> int:
        # Kept: it is asked again for each task that comes while this one waits.
        if not batch.most:
            batch.most = self.most(batch.work)
        return batch.most

    def _in_time(self, number: int, _ended: Future[None]) -> None:
        self._timed.pop(number, None)

    def _overdue(self, number: int) -> None:
        batch = self._timed.pop(number, None)
        if batch is not None:
            batch.time_out()

    def _finished(self, batch: Batch, error: BaseException | None) -> None:
        hosts = batch.hosts
        with self._lock:
            # Hosts without work are not kept: there may be very many in a run.
            left = self._going.pop(hosts) - 1
            if left:
                self._going[hosts] = left
            self._to_look.append(hosts)
            self._forget(batch)
        batch.settle(error)
        self._go_on()

    def _forget(self, batch: Batch) -> None:
        batches = self._of_task[_task_of(batch)]
        batches.remove(batch)
        if not batches:
            del self._of_task[_task_of(batch)]


def _most_of(method: Staging) -> int:
    said = attribute(method, "at_once")
    return said + _AHEAD if type(said) is int and said > 0 else _USUAL


def _task_of(batch: Batch) -> int:
    return batch.work[0][1][0].task_id


def _since(batch: Batch) -> int:
    return batch.since_ns or 0


def _ended(work: Work) -> StagingError:
    return StagingError(f"{urls_of(work)} was not moved: the run ended before its turn")
