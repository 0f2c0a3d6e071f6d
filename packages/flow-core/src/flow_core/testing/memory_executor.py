"""In-memory executor for tests: the test decides what becomes of each try, or threads of its own run them."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

from flow_core.errors import ExecutorClosed, Requeue
from flow_core.interfaces.call import Call, NodeContext, TryKey
from flow_core.interfaces.context import RunContext
from flow_core.interfaces.executor import Executor, ShutdownReport
from flow_core.interfaces.outcome import Loss, LossKind, Outcome, Place, TryListener, Verdict
from flow_core.interfaces.scaling import Load
from flow_core.interfaces.task_fields import HONOURED_BY_ALL, TASK_FIELDS
from flow_core.interfaces.waiting import Cause, CauseKind, tasks_ahead

_WAIT_S = 30.0  # seconds; bounds waits that end by an event, so it shows only where something is broken


class MemoryExecutor(Executor):
    """Holds tries until the test says what becomes of each; reports on the thread of the test.

    With ``slots`` it is a whole executor: that many daemon threads run the tries in order of submission.

    Attributes:
        calls: Every call ever submitted, by key, in order.
        cancelled: Every request to cancel, as (key, kill), in order.
        flushes: How often ``flush`` was called.
    """

    kills = True
    in_process = True

    def __init__(self, label: str = "memory", *, slots: int = 0) -> None:
        """Take a label and the number of threads; 0 means that the test does everything."""
        self.label = label
        self.slots = slots
        # Where there are no threads the test decides what becomes of a task.
        self.honours = HONOURED_BY_ALL if slots else frozenset(TASK_FIELDS)
        self.calls: dict[TryKey, Call] = {}
        self.cancelled: list[tuple[TryKey, bool]] = []
        self.flushes = 0
        self._changed = threading.Condition()
        self._waiting: dict[TryKey, Call] = {}
        self._running: dict[TryKey, tuple[Call, int]] = {}
        self._closing: list[Outcome] = []
        self._listener: TryListener | None = None
        self._generation = 0
        self._place = Place(executor=label, node="memory")

    # -- the interface

    def start(self, context: RunContext) -> None:
        """Take the listener and start the threads, if any."""
        with self._changed:
            self._listener = context.listener
            self._generation += 1
            generation = self._generation
        for number in range(self.slots):
            name = f"{self.label}-{generation}-{number}"
            threading.Thread(target=self._work, args=(generation, context.listener), name=name, daemon=True).start()

    def submit(self, key: TryKey, call: Call, /) -> None:
        """Keep one try until the test, or a thread, takes it. Raises ExecutorClosed."""
        with self._changed:
            if self._listener is None:
                raise ExecutorClosed(f"executor {self.label!r} is not started; load a Config with it first")
            self.calls[key] = call
            self._waiting[key] = call
            self._changed.notify_all()

    def flush(self) -> None:
        """Count the hint in ``flushes``; nothing is buffered here."""
        self.flushes += 1

    def cancel(self, keys: Sequence[TryKey], /, *, kill: bool = False) -> None:
        """Cancel waiting tries; with ``kill`` running ones too. Reports from here when the test drives."""
        with self._changed:
            self.cancelled.extend((key, kill) for key in keys)
            gone = [key for key in keys if self._waiting.pop(key, None) is not None]
            if kill:
                gone += [key for key in keys if self._running.pop(key, None) is not None]
            listener = self._listener
        if gone and listener is not None:
            listener.finished([Outcome(key, Verdict.CANCELLED, place=self._place) for key in gone])

    def load(self) -> Load:
        """Return how many wait and run."""
        with self._changed:
            return Load(waiting=len(self._waiting), running=len(self._running), slots=self.slots)

    def why_waiting(self, key: TryKey, /, *, timeout_s: float = 2.0) -> Sequence[Cause]:
        """Say whether a try waits or runs, and what is ahead of it."""
        with self._changed:
            if key in self._running:
                return (Cause(CauseKind.RUNNING, f"executor {self.label!r} runs it"),)
            if key not in self._waiting:
                return ()
            ahead = list(self._waiting).index(key)
        return (Cause(CauseKind.QUEUED, f"executor {self.label!r} has not begun it: {tasks_ahead(ahead)}"),)

    def shutdown(self, timeout_s: float) -> ShutdownReport:
        """Give every try left an outcome: RETURNED if it waits, CANCELLED if it runs."""
        begun = time.monotonic()
        with self._changed:
            # Taken under the lock and called outside of it: reports may submit again.
            listener, self._listener = self._listener, None
            self._generation += 1
            outcomes = [Outcome(key, Verdict.RETURNED, place=self._place) for key in self._waiting]
            outcomes += [Outcome(key, Verdict.CANCELLED, place=self._place) for key in self._running]
            forced = tuple(f"try {key} was still running" for key in self._running)
            self._waiting.clear()
            self._running.clear()
            self._changed.notify_all()
        if listener is not None and outcomes:
            listener.finished(outcomes)
        return ShutdownReport(forced=forced, elapsed_s=time.monotonic() - begun)

    # -- what a test does with it

    @property
    def waiting(self) -> list[TryKey]:
        """Keys submitted and not started, in order."""
        with self._changed:
            return list(self._waiting)

    @property
    def running(self) -> list[TryKey]:
        """Keys started and not ended, in order."""
        with self._changed:
            return list(self._running)

    def wait_submitted(self, count: int, timeout_s: float = _WAIT_S) -> list[TryKey]:
        """Wait until ``count`` tries were ever submitted; return their keys. Raises AssertionError on time-out."""
        with self._changed:
            if not self._changed.wait_for(lambda: len(self.calls) >= count, timeout_s):
                raise AssertionError(f"{len(self.calls)} of {count} tries were submitted within {timeout_s} s")
            return list(self.calls)

    def begin(self, key: TryKey) -> None:
        """Report a waiting try as started."""
        self._begin(key).started([(key, time.time_ns(), self._place)])

    def finish(self, key: TryKey, value: object = None) -> None:
        """Report OK with a value, without running anything."""
        self._report(key, Verdict.OK, value=value)

    def fail(self, key: TryKey, error: BaseException) -> None:
        """Report APP_ERROR with an exception."""
        self._report(key, Verdict.APP_ERROR, error=error)

    def lose(self, key: TryKey, kind: LossKind = LossKind.WORKER, reason: str = "lost by the test") -> None:
        """Report LOST, as after the death of a worker or a node."""
        self._report(key, Verdict.LOST, loss=Loss(kind, place=self._place, signal=9, reason=reason))

    def requeue(self, key: TryKey) -> None:
        """Report REQUEUED: it was told that its block ends, and asks to be made again."""
        self._report(key, Verdict.REQUEUED, error=Requeue("saved by the test"))

    def give_back(self, key: TryKey) -> None:
        """Report RETURNED: it never started."""
        self._report(key, Verdict.RETURNED)

    def refuse(self, key: TryKey, error: BaseException) -> None:
        """Report REFUSED: it can never run here."""
        self._report(key, Verdict.REFUSED, error=error)

    def run(self, key: TryKey) -> None:
        """Run a waiting try here, as a node would, and report its start and its outcome."""
        call = self.calls[key]
        self.begin(key)
        outcome = _execute(key, call, self._place)
        self._deliver(outcome)

    def run_all(self) -> int:
        """Run what waits, also what its reports submit, until nothing waits; return how many ran."""
        count = 0
        while keys := self.waiting:
            for key in keys:
                self.run(key)
            count += len(keys)
        return count

    # -- how

    def _begin(self, key: TryKey) -> TryListener:
        with self._changed:
            if self._listener is None or key not in self._waiting:
                raise AssertionError(f"try {key} does not wait on executor {self.label!r}")
            self._running[key] = (self._waiting.pop(key), time.time_ns())
            return self._listener

    def _report(
        self,
        key: TryKey,
        verdict: Verdict,
        value: object = None,
        error: BaseException | None = None,
        loss: Loss | None = None,
    ) -> None:
        outcome = Outcome(key, verdict, value=value, error=error, loss=loss, place=self._place)
        if not self._deliver(outcome):
            raise AssertionError(f"try {key} is not on executor {self.label!r}")

    def _deliver(self, outcome: Outcome) -> bool:
        """Report an outcome if its try is still here; a try that was cancelled or shut down has its outcome."""
        with self._changed:
            entry = self._running.pop(outcome.key, None)
            waiting = self._waiting.pop(outcome.key, None)
            listener = self._listener
        # A try that was cancelled, or given back by a shutdown, has its one outcome already.
        if listener is None or (entry is None and waiting is None):
            return False
        if entry is not None and not outcome.started_ns:
            outcome.started_ns = entry[1]
        if not outcome.ended_ns:
            outcome.ended_ns = time.time_ns()
        listener.finished([outcome])
        return True

    def _take(self, generation: int) -> tuple[TryKey, Call] | None:
        with self._changed:
            # Threads of an earlier start end by themselves: a start or a shutdown since then has another number.
            while generation == self._generation:
                if self._waiting:
                    key = next(iter(self._waiting))
                    self._running[key] = (self._waiting.pop(key), time.time_ns())
                    return key, self._running[key][0]
                self._changed.wait(_WAIT_S)
        return None

    def _work(self, generation: int, listener: TryListener) -> None:
        while (taken := self._take(generation)) is not None:
            key, call = taken
            listener.started([(key, time.time_ns(), self._place)])
            self._deliver(_execute(key, call, self._place))


def _execute(key: TryKey, call: Call, place: Place) -> Outcome:
    """Run one call as a node does."""
    from flow_core.remote.run import execute

    where = NodeContext(executor=place.executor, node=place.node, key=key)
    started_ns = time.time_ns()
    try:
        value = execute(call.func, call.args, call.kwargs, call.spec, call.steps, where)
    # As a node does: what a task raises, SystemExit too, is its outcome and ends no thread.
    except BaseException as error:
        return Outcome(key, Verdict.APP_ERROR, error=error, place=place, started_ns=started_ns)
    return Outcome(key, Verdict.OK, value=value, place=place, started_ns=started_ns)
