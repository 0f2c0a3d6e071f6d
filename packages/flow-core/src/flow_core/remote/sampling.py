"""Running the sampler that a run asks for, where tasks run: in a manager, or beside them on a thread of its own."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from importlib import import_module

from flow_core.guard import is_a, one_line
from flow_core.interfaces.call import TryKey
from flow_core.interfaces.sampler import NodeSampler, Sample, SamplerSpec
from flow_core.remote.sampling_timer import LEAST_S, SamplingTimer

log = logging.getLogger("flow.sampling")

_TOLD_AFTER_S = 1.0  # seconds; the start of a shorter task comes with its result
_QUIET_TURNS = 5  # turns without a task before the thread rests, so that short gaps cost no wake-up
_PATIENCE_S = 1.0  # seconds that the end of a task waits for a sampler that is at it


class Sampling:
    """A sampler and its clock. It never raises: a sampler that fails is dropped, with a line in the log.

    Used by one thread at a time. ``now`` is of ``time.monotonic``.
    """

    def __init__(self, spec: SamplerSpec, now: float) -> None:
        # However small an interval was asked for, sampling must not take the time of tasks.
        self.interval_s = max(LEAST_S, spec.interval_s)
        self._sampler: NodeSampler | None = self._make(spec)
        self._sampled: frozenset[int] = frozenset()
        self.due = now + self.interval_s

    def _make(self, spec: SamplerSpec) -> NodeSampler | None:
        try:
            module, _, name = spec.factory.partition(":")
            # By a dotted name: the core imports no monitoring, and nodes may lack it.
            made: NodeSampler = getattr(import_module(module), name)(**dict(spec.settings))
        except BaseException as error:
            log.warning("no samples from this node: %s cannot be made (%s)", spec.factory, one_line(error))
            return None
        return made

    def take(self, running: Mapping[int, int], now: float) -> Sequence[Sample]:
        """Sample, and set the clock."""
        self.due = now + self.interval_s
        tries = {pid: TryKey(key) for pid, key in running.items()}
        samples = self._ask(lambda sampler: sampler.sample(tries, time.time_ns()))
        self._sampled = frozenset(tries.values())
        return samples

    def was_sampled(self, key: int) -> bool:
        """Tell whether a try was among those sampled last. Any thread."""
        return key in self._sampled

    def ended(self, pid: int, keys: Iterable[int]) -> Sequence[Sample]:
        """Take a last look at what a worker ran, where that was sampled before: so short tasks cost nothing."""
        known = self._sampled.intersection(keys)
        if not known:
            return ()
        self._sampled -= known
        return self._ask(lambda sampler: sampler.ended({pid: TryKey(min(known))}, time.time_ns()))

    def _ask(self, question: Callable[[NodeSampler], Sequence[Sample]]) -> Sequence[Sample]:
        if self._sampler is None:
            return ()
        try:
            samples = tuple(question(self._sampler))
            # A sampler may be the user's own and return anything.
            if not all(is_a(sample, Sample) for sample in samples):
                raise TypeError("what it returned are no Samples")
            return samples
        except BaseException as error:
            log.warning("no more samples from this node: the sampler raised %s", one_line(error))
            self._drop()
            return ()

    def _drop(self) -> None:
        sampler, self._sampler = self._sampler, None
        with suppress(BaseException):
            if sampler is not None:
                sampler.close()

    def close(self) -> None:
        """Release what the sampler holds; nothing is sampled after that."""
        self._drop()


Start = tuple[TryKey, int, int]
"""Key, time in ns UTC, and the pid or the native id of the thread that the try runs in."""
Tell = Callable[[Sequence[Start], Sequence[Sample]], None]
"""Takes starts of tries that have run for a second, and samples. Any thread; must not raise."""


class TaskWatch:
    """Samples the tasks that run in this process, from a daemon thread that rests while there are none.

    Threads that run tasks call ``begin`` and ``end``, which cost a microsecond for a task too short to be sampled.
    """

    def __init__(self, spec: SamplerSpec, tell: Tell, name: str) -> None:
        """Take what to sample with, where to tell it, and the thread's name."""
        self._tell = tell
        self._sampling = Sampling(spec, time.monotonic())
        self._timer = SamplingTimer(spec.interval_s)
        self._running: dict[int, tuple[TryKey, int]] = {}
        self._reported: dict[int, TryKey] = {}
        self._closed = False
        self._lock = threading.Lock()
        """Guards the sampler, and keeps samples in the order in which they were taken."""
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def begin(self, ident: int, key: TryKey) -> None:
        """A try begins in a process or thread."""
        # No lock: single operations of a dict are atomic, and this is on the way of each task.
        self._running[ident] = (key, time.time_ns())
        self._timer.wake()

    def end(self, ident: int) -> None:
        """The try that runs there has ended; one that was sampled is sampled a last time, before this returns."""
        found = self._running.pop(ident, None)
        if found is None:  # a task ran another one in its own place
            return
        key, _ = found
        # Only tasks that were sampled before wait for the lock; short ones never do.
        if self._sampling.was_sampled(key) and self._lock.acquire(timeout=_PATIENCE_S):
            try:
                self._tell((), self._sampling.ended(ident, (key,)))
            finally:
                self._lock.release()

    def close(self) -> None:
        """Take no more samples. Idempotent."""
        if self._lock.acquire(timeout=_PATIENCE_S):  # else a sampler does not return
            try:
                if not self._closed:
                    self._sampling.close()
            finally:
                self._lock.release()
        self._closed = True
        self._timer.end()

    def _run(self) -> None:
        quiet = 0
        while self._timer.next():
            if self._running:
                quiet = 0
                self._look()
                continue
            quiet += 1
            if quiet > _QUIET_TURNS:
                self._timer.rest(lambda: not self._running)
                quiet = 0

    def _look(self) -> None:
        now_ns, now = time.time_ns(), time.monotonic()
        # A copy in one step, since tasks begin and end meanwhile.
        running = dict(self._running)
        long = {ident: run for ident, run in running.items() if now_ns - run[1] >= _TOLD_AFTER_S * 1e9}
        starts = [(key, since, ident) for ident, (key, since) in long.items() if self._reported.get(ident) != key]
        self._reported = {ident: key for ident, (key, _) in long.items()}
        with self._lock:
            if self._closed:
                return
            samples: Sequence[Sample] = ()
            if now >= self._sampling.due:
                samples = self._sampling.take({ident: key for ident, (key, _) in running.items()}, now)
            if starts or samples:
                self._tell(starts, samples)
