"""Transfer pool: threads of a staging method's own, so that transfers occupy no worker and no kernel thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from flow_core.bounded_calls import start_unless_ending
from flow_core.interfaces.staging import Progress, StagingFuture
from flow_staging.transfer.failures import TransferCancelled
from flow_staging.transfer.handle import Handle
from flow_staging.transfer.shares import Shares

HOSTS = 8
"""Factor between the threads of one host and those of all: up to seven slow hosts leave threads for the others."""
_IDLE_S = 5.0  # seconds after which a thread without work ends; only the magnitude matters
_CLOSE_S = 5.0  # seconds close() waits for threads; one that is stuck in the network is a daemon and may stay
_MOST_RESTING = 64
"""Threads at most that wait for another try without holding a turn: bounds the threads while all hosts are down."""


@dataclass(frozen=True, slots=True)
class TransferJob:
    """One transfer for the pool, blocking, with its host and its key.

    Attributes:
        key: Pieces with the same non-empty key never run at once: the second finds in the cache what the first
            brought, and does not hold a thread meanwhile.
        run: Does it; gets the handle that tells it to stop; raises what is wrong. May return the digest it learnt.
        host: The other side: each one has its share of the threads, so that a slow one holds up only its own.
    """

    key: str
    run: Callable[[Handle], str | None]
    host: str = ""


class TransferPool:
    """Runs groups of jobs; one future a group. Threads start when needed, end when idle, and never hold up the exit.

    Args:
        threads: Jobs of one host that run at once.
        name: Of the threads.
        in_all: Jobs of all hosts that run at once; by default eight times as many.
    """

    def __init__(self, threads: int, name: str, in_all: int | None = None) -> None:
        self._limit = threads * HOSTS if in_all is None else in_all
        self._name = name
        self._lock = threading.Lock()
        self._some = threading.Condition(self._lock)
        self._back = threading.Condition(self._lock)
        self._queue: Shares[_Work] = Shares(threads)
        self._first: dict[str, _Work] = {}
        self._parked: dict[str, list[_Work]] = {}
        self._threads: set[threading.Thread] = set()
        self._idle = 0
        self._busy = 0
        self._resting = 0
        self._groups: set[_Group] = set()
        self._opening = 0
        self._turn = _Turn()

    def submit(self, jobs: Sequence[TransferJob], last: Callable[[bool], None] | None = None) -> StagingFuture:
        """Start a group; does not block.

        Args:
            jobs: The jobs.
            last: Called when all jobs that began have ended, on the thread of the last one, with whether one has
                failed; what it raises is the group's error if there was none.

        Returns:
            A future that ends when every job has ended: with the digests that the jobs learnt, in their order, or the
            first error, which also stops the others. Cancelling it keeps jobs from starting and stops those that run,
            but for those whose key is waited for by other groups: these go on while a group waits for them.
        """
        group = _Group(self, jobs, last)
        if not jobs:
            group.future.set_result([])
            return group.future
        with self._lock:
            self._groups.add(group)
            for work in group.works:
                key = work.job.key
                # Parked: the job that runs brings it into the cache, and holds the only thread that is needed.
                if key and key in self._first:
                    self._parked.setdefault(key, []).append(work)
                    continue
                if key:
                    self._first[key] = work
                self._queue.add(work.job.host, work)
            self._call_threads()
        return group.future

    def cancel(self, group: _Group, error: BaseException | None = None) -> None:
        """Stop the jobs of a group, but for those that another group waits for."""
        with self._lock:
            group.error = group.error or error
            stop = self._let_go(group)
        # Outside of the lock: what ends a wait may be slow, and calls back into the pool.
        for handle in stop:
            handle.set()

    def close(self) -> None:
        """Stop everything; returns within 5 s, also when a transfer is stuck in the network.

        A group submitted later opens the pool again: a Config, and with it a staging method, may be loaded twice.
        """
        with self._lock:
            # Threads of an earlier opening see that they are such and end.
            self._opening += 1
            groups, threads = list(self._groups), list(self._threads)
            self._threads.clear()
            self._some.notify_all()
        for group in groups:
            group.closed()
        deadline = time.monotonic() + _CLOSE_S
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    @contextmanager
    def resting(self) -> Iterator[None]:
        """Give the turn of the calling thread to another one while it only waits, and wait for one after that.

        A job's wait may be for what another job of its group has begun, on another host; and what is done after all
        jobs may be done by a thread that is none of the pool's, and has no turn.
        """
        host = self._turn.host
        if host is None:
            yield
            return
        with self._lock:
            # Beyond the bound the turn is kept: that host is slowed down, and no further thread is made.
            rests = self._resting < _MOST_RESTING
            if rests:
                self._resting += 1
                self._release(host)
        try:
            yield
        finally:
            if rests:
                with self._lock:
                    self._queue.returning(host)
                    # Those that come back go before new jobs, else a busy host would never let them.
                    while not self._queue.enter(host):
                        self._back.wait(_IDLE_S)
                    self._resting -= 1
                    self._busy += 1

    # -- the threads; the lock is held where a name says nothing of it

    def _call_threads(self, taken: int = 0) -> None:
        """Wake or start threads for what may run now, but for so much that the caller takes itself."""
        # No more threads than jobs that may begin: each further one would wake for nothing.
        number = min(self._queue.ready(), self._limit - self._busy) - taken
        if number <= 0:
            return
        self._some.notify(number)
        for _ in range(number + taken - self._idle):
            # Daemons: the exit of the script never waits for a network.
            thread = threading.Thread(target=self._work, args=(self._opening,), name=f"flow-{self._name}", daemon=True)
            # Else the process ends: its close, which comes next, stops what waits.
            if not start_unless_ending(thread):
                return
            self._threads.add(thread)
            self._idle += 1

    def _work(self, opening: int) -> None:
        while (work := self._next(opening)) is not None:
            work.run()
            self._done(work)

    def _next(self, opening: int) -> _Work | None:
        with self._lock:
            deadline = time.monotonic() + _IDLE_S
            while True:
                work = self._queue.take() if self._busy < self._limit else None
                left_s = deadline - time.monotonic()
                if work is not None or opening != self._opening or left_s <= 0:
                    break
                self._some.wait(left_s)
            self._idle -= 1
            if work is None:
                self._threads.discard(threading.current_thread())
            else:
                self._busy += 1
                self._turn.host = work.job.host
                # Under the lock exactly one job of a group is the first, which sets its future running.
                work.begins, work.group.begun = not work.group.begun, True
            return work

    def _release(self, host: str, taken: int = 0) -> None:
        self._busy -= 1
        self._queue.leave(host)
        if self._resting:
            self._back.notify_all()
        self._call_threads(taken)

    def _done(self, work: _Work) -> None:
        group = work.group
        ended = False
        # The last step runs with the turn still held: it is a transfer as well.
        if group.last is not None:
            with self._lock:
                ended = group.ended()
            if ended:
                group.finish(work.handle)
        with self._lock:
            if group.last is None:
                ended = group.ended()
            key = work.job.key
            if key:
                del self._first[key]
                parked = self._parked.get(key, [])
                if parked:
                    # The next one finds in the cache what this one brought, and is quick; or tries itself, if this one
                    # failed.
                    self._first[key] = heir = parked.pop(0)
                    self._queue.add(heir.job.host, heir)
                if not parked:
                    self._parked.pop(key, None)
            self._idle += 1
            self._release(work.job.host, taken=1)
        if ended:
            with self._lock:  # before the future is set: closing the pool then must not stop finished work
                self._groups.discard(group)
            group.settle()

    def _let_go(self, group: _Group) -> list[Handle]:
        """Mark a group as gone; return the handles of jobs that no other group waits for."""
        group.gone = True
        stop = []
        for work in group.works:
            key = work.job.key
            first = self._first.get(key) if key else work
            # A file that another group waits for goes on, though this group does not want it.
            wanted = any(not one.group.gone for one in self._parked.get(key, ()))
            if first is not None and first.group.gone and not wanted:
                stop.append(first.handle)
        return stop


class _Turn(threading.local):
    """The host of which the calling thread has a turn, None if it has none: it is no thread of the pool."""

    host: str | None = None


class _Work:
    """A job of a group, what others hold of it, what it has learnt, and whether it begins its group."""

    __slots__ = ("begins", "group", "handle", "job", "learnt")

    def __init__(self, pool: TransferPool, group: _Group, job: TransferJob) -> None:
        self.group = group
        self.job = job
        self.handle = Handle(pool.resting)
        self.learnt = ""
        self.begins = False

    def run(self) -> None:
        """Run the job on the calling thread, which works for its handle meanwhile."""
        with self.handle:
            self.group.run(self)


class _Group:
    """The jobs of one call and their common future.

    Attributes:
        last: To be called when all jobs have ended, None for nothing.
        error: The first of a job, None while there is none.
        begun: Whether a job has begun.
        gone: The group was cancelled, or one of its jobs has failed.
    """

    __slots__ = ("_left", "_pool", "begun", "error", "future", "gone", "last", "works")

    def __init__(self, pool: TransferPool, jobs: Sequence[TransferJob], last: Callable[[bool], None] | None) -> None:
        self.works = [_Work(pool, self, job) for job in jobs]
        self._pool = pool
        self.last = last
        self.future: StagingFuture = _GroupFuture(self)
        self.gone = False
        self.begun = False
        self._left = len(jobs)
        self.error: BaseException | None = None

    def run(self, work: _Work) -> None:
        """Run one job unless its group was cancelled or has failed."""
        # False: it was cancelled before any job began.
        if work.begins and not self.future.set_running_or_notify_cancel():
            self.gone = True
        if self.gone:
            self._pool.cancel(self, TransferCancelled("the transfer was stopped before it began"))
            return
        try:
            learnt = work.job.run(work.handle)
            work.learnt = "" if learnt is None else learnt
        except BaseException as error:
            self._pool.cancel(self, error)

    def cancel(self) -> None:
        """Stop the group's jobs, but for those that another group waits for."""
        self._pool.cancel(self)

    def closed(self) -> None:
        """Stop all jobs, also those that other groups wait for: the pool is closed."""
        for work in self.works:
            work.handle.set()

    def progress(self) -> list[Progress]:
        """Return how far each job is, in the order of the jobs."""
        return [work.handle.meter.progress() for work in self.works]

    def ended(self) -> bool:
        """Count one job as ended; True for the last. The pool's lock is held."""
        self._left -= 1
        return self._left == 0

    def finish(self, handle: Handle) -> None:
        """Do what is to be done when all jobs have ended, which the handle of the last one stops."""
        if self.last is not None:
            try:
                with handle:
                    self.last(self.gone or self.error is not None)
            except Exception as error:
                self.error = error if self.error is None else self.error

    def settle(self) -> None:
        """Set the future; the callbacks of the kernel run here, on the pool's thread, with no lock held."""
        if self.future.cancelled():
            return
        # A future must not end with a result of which parts were stopped.
        if self.gone and self.error is None:
            self.error = TransferCancelled("the transfer was stopped before it was complete")
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result([work.learnt for work in self.works])


class _GroupFuture(StagingFuture):
    """The future of a group. Cancelling stops what runs."""

    def __init__(self, group: _Group) -> None:
        super().__init__()
        self._group = group

    def cancel(self) -> bool:
        """Cancel the future and stop the jobs that run; False where it had begun or ended."""
        never = super().cancel()
        self._group.cancel()
        return never

    def progress(self) -> Sequence[Progress]:
        """Return how far each transfer is, in the order of the jobs."""
        return self._group.progress()
