"""A few threads of a staging method's own: transfers on the submit side occupy no worker and no kernel thread."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from flow_core.interfaces.staging import Digests

_IDLE_S = 5.0
_CLOSE_S = 5.0


@dataclass(frozen=True, slots=True)
class Job:
    """One piece of work.

    Attributes:
        key: Pieces with the same non-empty key never run at once: the second finds in the cache what the first
            brought, and does not hold a thread meanwhile.
        run: Does it; gets the event that tells it to stop; raises what is wrong. May return the digest it learnt.
    """

    key: str
    run: Callable[[threading.Event], str | None]


class TransferPool:
    """Runs groups of jobs; one future a group. Threads start when needed, end when idle, and never hold up the exit."""

    def __init__(self, threads: int, name: str) -> None:
        self._limit = threads
        self._name = name
        self._lock = threading.Lock()
        self._some = threading.Condition(self._lock)
        self._ready: deque[tuple[Job, _Group]] = deque()
        self._parked: dict[str, deque[tuple[Job, _Group]]] = {}
        self._threads: set[threading.Thread] = set()
        self._idle = 0
        self._groups: set[_Group] = set()
        self._opening = 0

    def submit(self, jobs: Sequence[Job], last: Callable[[bool], None] | None = None) -> Future[Digests]:
        """Start a group; does not block.

        Args:
            jobs: The jobs.
            last: Called when all jobs that began have ended, on the thread of the last one, with whether one has
                failed; what it raises is the group's error if there was none.

        Returns:
            A future that ends when every job has ended: with the digests that the jobs learnt, in their order, or the
            first error, which also stops the others. Cancelling it before a job has started keeps all of them from
            starting.
        """
        group = _Group(jobs, last)
        if not jobs:
            group.future.set_result([])
            return group.future
        with self._lock:
            self._groups.add(group)
            for job in jobs:
                if job.key and job.key in self._parked:
                    self._parked[job.key].append((job, group))
                    continue
                if job.key:
                    self._parked[job.key] = deque()
                self._ready.append((job, group))
            self._some.notify(len(jobs))
            for _ in range(min(len(self._ready) - self._idle, self._limit - len(self._threads))):
                thread = threading.Thread(
                    target=self._work, args=(self._opening,), name=f"flow-{self._name}", daemon=True
                )
                self._threads.add(thread)
                thread.start()
        return group.future

    def close(self) -> None:
        """Stop everything; returns within 5 s, also when a transfer is stuck in the network.

        A group submitted later opens the pool again: a Config, and with it a staging method, may be loaded twice.
        """
        with self._lock:
            self._opening += 1
            groups, threads = list(self._groups), list(self._threads)
            self._threads.clear()
            self._some.notify_all()
        for group in groups:
            group.stop.set()
        for thread in threads:
            thread.join(_CLOSE_S / max(1, len(threads)))

    def _work(self, opening: int) -> None:
        while (work := self._next(opening)) is not None:
            job, group = work
            group.run(job)
            self._done(job, group)

    def _next(self, opening: int) -> tuple[Job, _Group] | None:
        with self._lock:
            self._idle += 1
            while not self._ready and opening == self._opening:
                if not self._some.wait(_IDLE_S) and not self._ready:
                    break
            self._idle -= 1
            if self._ready:
                return self._ready.popleft()
            self._threads.discard(threading.current_thread())
            return None

    def _done(self, job: Job, group: _Group) -> None:
        with self._lock:
            if job.key:
                parked = self._parked[job.key]
                if parked:
                    self._ready.append(parked.popleft())
                    self._some.notify()
                else:
                    del self._parked[job.key]
            ended = group.ended()
        if ended:
            group.settle()
            with self._lock:
                self._groups.discard(group)


class _Group:
    """The jobs of one call and their common future."""

    def __init__(self, jobs: Sequence[Job], last: Callable[[bool], None] | None) -> None:
        self._jobs = jobs
        self._last = last
        self._learnt: dict[int, str] = {}
        self.future: Future[Digests] = Future()
        self.stop = threading.Event()
        self._left = len(jobs)
        self._error: BaseException | None = None
        self._lock = threading.Lock()
        self._started = False

    def run(self, job: Job) -> None:
        """Run one job unless the group is cancelled or has failed."""
        with self._lock:
            if not self._started:
                self._started = True
                if not self.future.set_running_or_notify_cancel():
                    self.stop.set()
        if self.stop.is_set() and (self._error is not None or self.future.cancelled()):
            return
        try:
            self._learnt[id(job)] = job.run(self.stop) or ""
        except BaseException as error:
            with self._lock:
                if self._error is None:
                    self._error = error
            self.stop.set()

    def ended(self) -> bool:
        """Count one job as ended; True for the last. The pool's lock is held."""
        self._left -= 1
        return self._left == 0

    def settle(self) -> None:
        """Set the future; the callbacks of the kernel run here, on the pool's thread, with no lock held."""
        if self._last is not None:
            try:
                self._last(self._error is not None or self.future.cancelled())
            except Exception as error:
                self._error = error if self._error is None else self._error
        if self.future.cancelled():
            return
        if self._error is not None:
            self.future.set_exception(self._error)
        else:
            self.future.set_result([self._learnt.get(id(job), "") for job in self._jobs])
