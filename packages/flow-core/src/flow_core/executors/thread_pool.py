"""Thread pool: how many threads there are, what each runs, and what becomes of those that are stuck.

``max_threads`` threads work. Three kinds of threads do not work, and each has another one work in its place:

- a thread whose task waits for another task of Flow. When its wait ends it goes on at once, and the next thread that
  has nothing to do ends;
- a thread that does not come back from a report of a begin or an end. What receives reports may call what is the
  user's, such as a handler of the log, or wait for a disk. When the report returns the thread goes on as after a wait;
- a thread whose task should have been ended and cannot be, since it is in code that takes no exception (code in C, a
  call that blocks). Its try is reported without it, what it still comes to is dropped, and it ends when its task does.

All are bounded.
"""

from __future__ import annotations

import ctypes
import os
import socket
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from functools import partial
from operator import itemgetter
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Final

from flow_core.bounded_calls import start_unless_ending
from flow_core.deadlines import Deadlines
from flow_core.errors import AppTimeout, DeadlockError, ExecutorBroken, ExecutorClosed
from flow_core.executors.full_pool import FullPool, Occupant
from flow_core.executors.nested import ADVICE, circle, circle_text, task_behind
from flow_core.executors.thread_watch import watch_threads, watched
from flow_core.futures.callbacks import packing_calls
from flow_core.futures.lean import host_waits
from flow_core.graph.plain_data import free_unless_plain
from flow_core.graph.resolver import ATOMS
from flow_core.hooks import where_in_users_code
from flow_core.interfaces.call import DEFAULT_SPEC, Call, NodeContext, TryKey
from flow_core.interfaces.executor import ShutdownReport
from flow_core.interfaces.outcome import Outcome, Place, Verdict
from flow_core.interfaces.waiting import Cause, CauseKind, count, shown_state, since, tasks_ahead
from flow_core.remote.blocked import wake
from flow_core.remote.errors import presentable
from flow_core.remote.run import execute
from flow_core.remote.tracebacks import fold

if TYPE_CHECKING:
    from flow_core.graph.task import Task
    from flow_core.interfaces.context import RunContext

MOST_PARKED: Final = 500
"""Threads of a pool that may wait, for tasks or reports, while others work in their place; it bounds the threads."""
REPORT_S: Final = 1.0
"""Seconds in a report after which another thread works in the place of one; reports take microseconds."""
SHUTDOWN_PATIENCE_S: Final = 2.0
"""Seconds that tasks may take to react at a shutdown; one blocking call once held up the end of a run for 24 s."""
LEAST_LEFT: Final = 16
"""Threads that may be left to tasks that cannot be ended, and be replaced: at least so many, or 4 times max_threads."""
PATIENCE_S: Final = 1.0
"""Seconds after its walltime, or after it was to be killed, that a Python app may take to react."""
STEPS_PATIENCE_S: Final = 6.0
"""Seconds for a task that runs commands: TERM, a grace of 2 s, KILL, and as long again until they are gone."""

_QUIET_LOOKS: Final = 20  # looks at reports without a try that waits, after which the thread that looks ends
_SHOWN: Final = 5  # tasks that a message names; the others are counted
_LOOK_AGAIN: Final = TryKey(0)  # no try has this key: the thread that takes it looks whether it is one too many

_here = threading.local()


def in_worker() -> bool:
    """Return whether the calling thread belongs to a ThreadPoolExecutor of Flow."""
    return getattr(_here, "working", False)


class Killed(BaseException):
    """Raised inside a task that was asked to end. No Exception, so that tasks do not catch it by mistake."""


class Interruptible:
    """A thread that runs one try after the other, each of which another thread may interrupt.

    The thread sets ``key`` before a try and calls ``leave`` after it; in between Killed may be raised anywhere, after
    ``leave`` it may not. ``_killing`` is set before ``key`` is looked at, and ``leave`` clears ``key`` before it
    looks at the flag, so one of the two always sees the other and no lock is taken where nobody is killed.
    """

    __slots__ = ("_killing", "_lock", "ident", "key")

    def __init__(self) -> None:
        self.key = 0
        self.ident = 0
        self._killing = False
        self._lock = threading.Lock()

    def kill(self, key: int) -> None:
        """Have Killed raised in the thread if it runs this try. C code goes on unless it is woken. Any thread."""
        with self._lock:
            # A second exception could be raised after leave() has taken back the first.
            if self._killing:
                return
            self._killing = True
            if self.key == key:
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self.ident), ctypes.py_object(Killed))
                wake(self.ident)
            else:
                self._killing = False

    def leave(self) -> None:
        """End the stretch in which Killed may be raised. May raise it a last time; call it again then."""
        self.key = 0
        if self._killing:
            with self._lock:
                # Takes back an exception that was set and not yet raised: it would end the next task of this thread.
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self.ident), None)
                self._killing = False


class Worker(Interruptible):
    """One thread of a pool, and the host of its task's waits.

    Attributes:
        rank: Its number, unique among the threads that there are.
        place: Place that is reported for its tasks.
        thread: The thread.
        call: The call that it runs, None between tasks.
        awaits: The future that its task waits for without a limit of time.
        waits: Number of waits that its task is in, one inside the other.
        parked: Whether another thread may work in its place while it waits.
        reports_ns: When it began to report the end of a try, int64 ns UTC; 0 while it reports none.
        replaced: Whether, given up, it has been replaced.
        began_ns: When it began what it runs, int64 ns UTC.
    """

    __slots__ = (
        "_pool",
        "awaits",
        "began_ns",
        "call",
        "parked",
        "place",
        "rank",
        "replaced",
        "reports_ns",
        "thread",
        "waits",
    )

    def __init__(self, pool: Pool, rank: int, place: Place) -> None:
        super().__init__()
        self._pool = pool
        self.rank = rank
        self.place = place
        self.thread: threading.Thread | None = None
        self.call: Call | None = None
        self.awaits: Future[Any] | None = None
        self.waits = 0
        self.parked = False
        self.replaced = False
        self.began_ns = 0
        self.reports_ns = 0

    @property
    def name(self) -> str:
        """Name of the thread, empty before it is made."""
        return "" if self.thread is None else self.thread.name

    def begin_wait(self, future: Future[Any] | None, timeout: float | None) -> None:
        """Let another thread work: this one's task is about to wait. Raises DeadlockError if that could never end."""
        self._pool.begin_wait(self, future, timeout)

    def end_wait(self) -> None:
        """Note that the wait is over; the thread counts as working again. Any thread."""
        self._pool.end_wait(self)


class Pool:
    """The threads and tries of a ThreadPoolExecutor between a start and a shutdown.

    Whoever takes a key out of ``waiting`` or ``running`` reports it; so each is reported once. ``_lock`` guards which
    threads there are; no future is settled and nothing reported under it.
    """

    def __init__(
        self, label: str, max_threads: int, thread_name_prefix: str, working_dir: str | None, context: RunContext
    ) -> None:
        self.label = label
        self.closed = False
        self.waiting: dict[TryKey, Call] = {}
        self.running: dict[TryKey, Worker] = {}
        self._max_threads = max_threads
        self._names = thread_name_prefix or label
        self._working_dir = working_dir
        self._listener = context.listener
        self._logger = context.logger
        self._queue: SimpleQueue[TryKey | None] = SimpleQueue()
        self._workers: list[Worker] = []
        self._ranks: set[int] = set()
        self._left: set[Worker] = set()
        # Threads that hang in the report of an end: no longer among ``running``, and not free either.
        self._held: set[Worker] = set()
        self._looking = False  # whether a thread looks at reports while tries wait
        self._parked = 0
        # Threads that may be started; workers + missing - parked - surplus = max_threads at any time.
        self._missing = max_threads
        self._surplus = 0
        self._lock = threading.Lock()
        self._closing = threading.Lock()
        self._node = socket.gethostname()
        self._report: ShutdownReport | None = None
        self._watch = watch_threads(context, label)
        self._deadlines = Deadlines(f"flow-overdue-{label}", self._give_up, self.running)
        self._killed: set[TryKey] = set()
        self._reported: set[str] = set()
        self._full = FullPool(label)

    def look(self) -> None:
        """Warn if all threads are occupied by tasks that do nothing, while others wait. Of one thread, now and then."""
        occupants = {
            int(key): Occupant(_named(worker.call), thread.ident or 0, thread.native_id or 0)
            for key, worker in list(self.running.items())
            if not worker.parked and (thread := worker.thread) is not None
        }
        text = self._full.look(occupants, len(self.waiting), self._max_threads)
        if text:
            self._logger.warning("%s", text)

    def submit(self, key: TryKey, call: Call) -> None:
        """Take one try. Raises ExecutorClosed, or ExecutorBroken where no thread can work any more."""
        if self.closed:
            raise ExecutorClosed(f"executor {self.label!r} was shut down")
        # In this order: a thread takes the key at once, and a key that is not in ``waiting`` counts as cancelled.
        self.waiting[key] = call
        self._queue.put(key)
        if self._missing:
            # No thread more than there are tries: most pools never need all.
            if len(self.waiting) + len(self.running) + len(self._held) > len(self._workers):
                self._grow(key)
            elif not self._looking:
                # A thread that reports the end of a try counts as free: it is, in a moment, unless it hangs in that.
                self._begin_to_look()
        elif not self._workers and self.waiting.pop(key, None) is not None:
            raise self._stuck()
        elif not self._looking:
            self._begin_to_look()
        if self._closed() and self.waiting.pop(key, None) is not None:
            raise ExecutorClosed(f"executor {self.label!r} was shut down")

    def _closed(self) -> bool:
        """Look again: another thread may have closed the pool meanwhile."""
        return self.closed

    def cancel(self, keys: Sequence[TryKey], kill: bool) -> None:
        """Cancel tries that wait; with ``kill`` interrupt those that run, and give up those that do not react."""
        outcomes = [Outcome(key, Verdict.CANCELLED) for key in keys if self.waiting.pop(key, None) is not None]
        if outcomes:
            self._listener.finished(outcomes)
        for key in keys if kill else ():
            worker = self.running.get(key)
            if worker is not None:
                call = worker.call
                # Noted first: the thread may not have set its key yet, and looks here after it has.
                self._killed.add(key)
                worker.kill(key)
                self._deadlines.add(key, STEPS_PATIENCE_S if call is not None and call.steps else PATIENCE_S)

    def why_waiting(self, key: TryKey) -> list[Cause]:
        """Say what keeps a try from being done."""
        worker = self.running.get(key)
        if worker is not None:
            causes = [Cause(CauseKind.RUNNING, f"thread {worker.name} runs it")]
            awaited = task_behind(worker.awaits)
            if awaited is not None:
                text = f"it waits inside for {awaited}, which is {shown_state(awaited.state.name)}"
                causes.append(Cause(CauseKind.DEPENDENCY, text, (awaited.tid,)))
            return causes
        waiting = list(self.waiting)
        if key not in self.waiting:
            return []
        ahead = waiting.index(key) if key in waiting else 0
        threads = count(self._max_threads, "thread")
        busy = (
            f"{len(self.running)} of {threads} of executor {self.label!r} {'is' if len(self.running) == 1 else 'are'}"
        )
        left = f"; besides, {count(len(self._left), 'thread')} still run what could not be ended" if self._left else ""
        if len(self._left) == 1:
            left = "; besides, 1 thread still runs what could not be ended"
        text = f"{tasks_ahead(ahead)}, and {busy} busy (max_threads)"
        return [Cause(CauseKind.QUEUED, f"{text}{self._busy_with()}{self._held_in_reports()}{left}")]

    def _busy_with(self) -> str:
        """Name the tasks that occupy threads, the longest first: one that waits for another may be among them."""
        now_ns = time.time_ns()
        busy = [(one.began_ns, one.call) for one in list(self.running.values()) if not one.parked]
        told = [(began, call) for began, call in sorted(busy, key=itemgetter(0)) if began and call is not None]
        if not told:
            return ""
        shown = ", ".join(f"{_named(call)} {since(began, now_ns)}" for began, call in told[:_SHOWN])
        more = f" and {len(told) - _SHOWN} more" if len(told) > _SHOWN else ""
        return f" with {shown}{more}"

    def _held_in_reports(self) -> str:
        """Name threads that do not come back from a report, and where they are."""
        now_ns = time.time_ns()
        held = [(worker, began_ns) for worker, began_ns in self._overdue_reports(now_ns) if worker.thread is not None]
        told = [
            f"thread {worker.name} has not come back from a report of a result {since(began_ns, now_ns)}"
            f"{where_in_users_code(worker.ident)}"
            for worker, began_ns in held[:_SHOWN]
        ]
        more = [f"{count(len(held) - _SHOWN, 'more thread')} neither"] if len(held) > _SHOWN else []
        return "".join(f"; {one}" for one in [*told, *more])

    def shutdown(self, timeout_s: float) -> ShutdownReport:
        """Give back what waits, interrupt what runs, and wait for the threads that react; idempotent.

        What does not react within ``SHUTDOWN_PATIENCE_S``, or ``STEPS_PATIENCE_S`` where commands run, is left behind.
        """
        began = time.monotonic()
        with self._closing:
            if self._report is not None:
                return self._report
            with self._lock:
                self.closed = True
                self._missing = 0
                workers = list(self._workers)
            self._give_back(Verdict.RETURNED)
            # One each; behind the keys, but those are no longer in ``waiting``, so they run nothing.
            for _ in workers:
                self._queue.put(None)
            self.cancel(list(self.running), kill=True)
            self._deadlines.close()
            self._join(workers, began + min(timeout_s, self._patience()))
            left = self._abandon()
            if self._watch is not None:
                self._watch.close()
            forced = tuple(self._still_runs(worker) for worker, _ in left)
            self._report = ShutdownReport(forced, time.monotonic() - began, _left_text(self.label, left))
            return self._report

    def _patience(self) -> float:
        """Return how long tasks that run may take to react; one that ends commands itself takes longer."""
        calls = [worker.call for worker in list(self.running.values())]
        steps = any(call is not None and call.steps for call in calls)
        return STEPS_PATIENCE_S if steps else SHUTDOWN_PATIENCE_S

    def _give_back(self, verdict: Verdict, error: BaseException | None = None) -> None:
        outcomes = [
            Outcome(key, verdict, error=error) for key in list(self.waiting) if self.waiting.pop(key, None) is not None
        ]
        if outcomes:
            self._listener.finished(outcomes)

    def _join(self, workers: Sequence[Worker], deadline: float) -> None:
        for worker in workers:
            thread = worker.thread
            if thread is None or thread.ident is None or thread is threading.current_thread():
                continue  # one that is being started finds that there is nothing to do
            thread.join(max(0.0, deadline - time.monotonic()))

    def _abandon(self) -> list[tuple[Worker, Call | None]]:
        """Report the tries of threads that did not end as cancelled; return the threads, with what they run."""
        left = [(worker, worker.call) for worker in list(self._left)]
        for key, worker in list(self.running.items()):
            call = worker.call
            if self.running.pop(key, None) is not None:
                left.append((worker, call))
                self._listener.finished([Outcome(key, Verdict.CANCELLED, place=worker.place)])
        return left

    def _still_runs(self, worker: Worker) -> str:
        return f"thread {worker.name} of executor {self.label!r} still runs its task and was left behind"

    # -- how many threads there are

    def _grow(self, key: TryKey | None = None) -> None:
        """Start one more thread if one may be started; ``key`` is a try that is just being submitted.

        Raises:
            ExecutorBroken: none can be started and none is there; the try is taken back.
        """
        with self._lock:
            if not self._missing:
                return
            self._missing -= 1
            # The least that is free: logs and pages show ranks, which are to stay small.
            rank = next(number for number in range(len(self._ranks) + 1) if number not in self._ranks)
            worker = Worker(self, rank, Place(self.label, node=self._node, worker=rank, pid=os.getpid()))
            self._workers.append(worker)
            self._ranks.add(rank)
            worker.thread = threading.Thread(
                target=self._work, args=(worker,), name=f"{self._names}_{rank}", daemon=True
            )
        try:
            worker.thread.start()
        except RuntimeError as error:  # the system gives no more threads
            self._not_started(worker, key, error)

    def _not_started(self, worker: Worker, key: TryKey | None, error: RuntimeError) -> None:
        with self._lock:
            self._workers.remove(worker)
            self._ranks.discard(worker.rank)
            self._missing += not self._workers  # the others do the work; with none there is another attempt
        text = f"executor {self.label!r} cannot start thread {worker.name} of {self._max_threads}: {error}"
        self._report_once("start", f"{text} ('ulimit -u' and memory limit them)")
        if key is not None and not self._workers and self.waiting.pop(key, None) is not None:
            raise ExecutorBroken(f"{text}. Set a smaller max_threads, or raise 'ulimit -u'")

    def _grow_if_needed(self) -> None:
        if self._missing and self.waiting:
            self._grow()

    def _retire(self, worker: Worker) -> bool:
        """Return whether an idle thread is one too many; it is no longer one of the pool then."""
        with self._lock:
            if not self._surplus or self.closed:
                return False
            self._surplus -= 1
            self._workers.remove(worker)
            self._ranks.discard(worker.rank)
            return True

    # -- threads whose tasks wait for other tasks

    def begin_wait(self, worker: Worker, future: Future[Any] | None, timeout: float | None) -> None:
        """Let another thread work while the task of this one waits. Raises DeadlockError."""
        goal = task_behind(future)
        with self._lock:
            # A wait with a limit of time ends by itself, so it closes no circle.
            if goal is not None and timeout is None and worker.call is not None:
                self._refuse_circle(worker.call, goal)
            # A thread that has come back from a report this very moment may still count as parked.
            first = not worker.waits and not worker.parked and not self.closed and worker not in self._left
            # Not a second time for a wait inside a wait, nor for a thread that was replaced already.
            if first and self._parked < MOST_PARKED:
                worker.parked = True
                self._parked += 1
                self._missing += 1
            elif first:
                self._refuse_lock_up(worker, goal)
            worker.waits += 1
            if first and timeout is None:
                worker.awaits = future
        self._grow_if_needed()

    def end_wait(self, worker: Worker) -> None:
        """Count this thread among those that work again, once its task is in no wait any more."""
        with self._lock:
            worker.waits = max(0, worker.waits - 1)
            one_too_many = not worker.waits and self._works_again(worker)
        if one_too_many:
            # An idle thread sleeps in the queue, and would never see that it is one too many.
            self._queue.put(_LOOK_AGAIN)

    def _end_waits(self, worker: Worker) -> None:
        """End all waits of a task that has ended, whatever it was interrupted in or has kept."""
        with self._lock:
            worker.waits = 0
            one_too_many = self._works_again(worker)
        if one_too_many:
            self._queue.put(_LOOK_AGAIN)

    def _works_again(self, worker: Worker) -> bool:
        """Take a thread back from its wait; return whether there is one too many now."""
        worker.awaits = None
        if not worker.parked:
            return False
        worker.parked = False
        self._parked -= 1
        if self._missing:
            self._missing -= 1
            return False
        self._surplus += 1
        return True

    # -- threads that do not come back from reports

    def _begin_to_look(self) -> None:
        """Have a thread look at reports as long as tries wait for a thread."""
        with self._lock:
            if self._looking or self.closed:
                return
            self._looking = True
        looking = threading.Thread(target=self._look_at_reports, name=f"flow-reports-{self.label}", daemon=True)
        if not start_unless_ending(looking):
            self._looking = False

    def _look_at_reports(self) -> None:
        quiet, before = 0, set[tuple[Worker, int]]()
        while quiet < _QUIET_LOOKS:
            time.sleep(REPORT_S / 2)
            if self.closed:
                return
            # Kept for a while: tries come and go, and a thread for each burst would cost more than these looks.
            quiet = 0 if self.waiting else quiet + 1
            held = set(self._overdue_reports(time.time_ns())) if self.waiting else set()
            # Twice the same: one whose task ends just now looks for a moment as if it had not begun it.
            for worker, _ in held & before:
                self._replace(worker)
            before = held
        self._looking = False
        if self.waiting:  # submitted just now, when this thread still counted as looking
            self._begin_to_look()

    def _overdue_reports(self, now_ns: int) -> list[tuple[Worker, int]]:
        """Return the threads that are in a report for too long, with when it began, int64 ns UTC."""
        ends = [(worker, began_ns) for worker in list(self._workers) if (began_ns := worker.reports_ns)]
        # ``key`` is set when the task itself begins.
        begins = [(worker, worker.began_ns) for worker in list(self.running.values()) if not worker.key]
        return [(worker, began_ns) for worker, began_ns in (*ends, *begins) if now_ns - began_ns > REPORT_S * 1e9]

    def _replace(self, worker: Worker) -> None:
        """Let another thread work in the place of one that does not come back from a report."""
        with self._lock:
            still = worker.reports_ns or (worker.call is not None and not worker.key)
            if worker.parked or not still or worker in self._left or self._parked >= MOST_PARKED:
                return
            worker.parked = True
            self._parked += 1
            self._missing += 1
            if worker.reports_ns:
                self._held.add(worker)
        self._grow_if_needed()
        self._warn_apart(
            f"thread {worker.name} of executor {self.label!r} does not come back from a report of a result"
            f"{where_in_users_code(worker.ident)}: another one works in its place until it does"
        )

    def _warn_apart(self, text: str) -> None:
        """Log without waiting for it: a handler of the log may be what the others hang in."""
        packing_calls.soon(self._logger.warning, text, lambda _call, _given: f"the log of executor {self.label!r}")

    def _refuse_circle(self, call: Call, goal: Task) -> None:
        way = circle(call, goal, self._awaited_by)
        if way:
            raise DeadlockError(circle_text(way))

    def _awaited_by(self, task: Task) -> Future[Any] | None:
        worker = self.running.get(TryKey(task.key))
        return None if worker is None else worker.awaits

    def _refuse_lock_up(self, worker: Worker, goal: Task | None) -> None:
        """Refuse a wait that no thread is left for, if that is certain; else log that it may be."""
        who = _named(worker.call)
        threads = f"{self._parked} threads of executor {self.label!r} have tasks that wait for other tasks"
        if goal is not None and goal.key in self.waiting:
            raise DeadlockError(
                f"{who} waits for {goal}, which needs a thread of the same executor, and {threads} already, as many as "
                f"may: {self._examples()}. {ADVICE}, or have fewer such waits at once"
            )
        self._report_once("parked", f"{threads}, as many as may: {who} waits without giving up its thread. {ADVICE}")

    def _examples(self) -> str:
        waits = [(worker.call, task_behind(worker.awaits)) for worker in self._workers[:20] if worker.parked]
        told = [f"{_named(call)} for {task}" for call, task in waits if task is not None]
        return ", ".join(told[:3]) or "for several each"

    # -- threads whose tasks cannot be ended

    def _give_up(self, key: TryKey) -> None:
        """Report a try that should have ended without its thread, and have another thread work in its place."""
        with self._lock:
            # Taken out here, so that the thread itself, should it end just now, reports nothing.
            worker = None if self.closed else self.running.pop(key, None)
            if worker is None:
                return
            self._leave_behind(worker)
            # No thread is left and none will be: what waits has to go to another executor.
            stuck = not self._workers and not self._missing
        killed = key in self._killed
        error = self._explained(worker, killed)
        self._grow_if_needed()
        outcome = Outcome(key, Verdict.CANCELLED) if killed else Outcome(key, Verdict.APP_ERROR, error=error)
        outcome.place = worker.place
        # By a thread that may hang in it: this one sees to the limits of all others.
        packing_calls.soon(
            self._listener.finished, (outcome,), lambda _call, _given: f"the report of a task of {self.label!r}"
        )
        self._warn_apart(str(error))
        if stuck:
            broken = self._stuck()
            self._warn_apart(str(broken))
            packing_calls.soon(
                lambda error: self._give_back(Verdict.REFUSED, error),
                broken,
                lambda _call, _given: f"the report of tasks of {self.label!r}",
            )

    def _leave_behind(self, worker: Worker) -> None:
        self._workers.remove(worker)
        self._left.add(worker)
        worker.replaced = worker.parked or len(self._left) <= max(LEAST_LEFT, 4 * self._max_threads)
        if worker.parked:  # another one works in its place already
            worker.parked = False
            self._parked -= 1
        elif worker.replaced:
            self._missing += 1

    def _explained(self, worker: Worker, killed: bool) -> AppTimeout:
        call = worker.call
        limit = None if call is None else call.spec.walltime_s
        place = f"thread {worker.name} of executor {self.label!r}"
        then = "another one works in its place" if worker.replaced else "it is not replaced, since very many are so"
        rest = (
            "could not be stopped: it is in code that takes no exception (a blocking call, code in C). It still "
            f"occupies {place}; {then}; what it comes to is dropped"
        )
        if killed or limit is None:
            return AppTimeout(f"{_named(call)} was to be killed, and {rest}")
        return AppTimeout.after(limit, rest, _named(call))

    def _stuck(self) -> ExecutorBroken:
        return ExecutorBroken(
            f"executor {self.label!r} has no thread left: {len(self._left)} are occupied by tasks that ran longer than "
            "their walltime, or were killed, and could not be stopped. It runs tasks again when one of them ends; let "
            "such apps run on executors whose workers are processes"
        )

    def _come_back(self, worker: Worker) -> bool:
        """Take back the thread of a task that was given up and has ended; return whether it may go on to work."""
        with self._lock:
            if worker not in self._left:
                return True  # the shutdown has reported its try
            self._left.discard(worker)
            if worker.replaced or self.closed:
                self._ranks.discard(worker.rank)
                return False
            self._workers.append(worker)
            return True

    def _report_once(self, what: str, text: str) -> None:
        if what not in self._reported:
            self._reported.add(what)
            self._logger.warning("%s", text)

    # -- what each thread does

    def _work(self, worker: Worker) -> None:
        _here.working = True
        host_waits(worker)
        worker.ident = threading.get_ident()
        take, waiting, running, listener = self._queue.get, self.waiting, self.running, self._listener
        place, now = worker.place, time.time_ns
        watch, killed = self._watch, self._killed
        while True:
            # Before a key is taken: one that was taken must be run.
            if self._surplus and self._retire(worker):
                return
            key = take()
            if key is None:
                return
            call = waiting.pop(key, None)
            if call is None:
                continue
            worker.call = call
            worker.began_ns = started_ns = now()
            running[key] = worker
            if self._missing and waiting and len(running) + len(self._held) >= len(self._workers):
                self._grow()  # submit() may have taken this thread for idle
            if call.spec is not DEFAULT_SPEC:
                self._limit(key, call)
            listener.started(((key, started_ns, place),))
            if worker.parked:  # it took long, and another one works in this one's place
                self._end_waits(worker)
            if watch is None:
                outcome = self._run(worker, key, call)
            else:
                outcome = watched(watch, key, partial(self._run, worker, key, call))
            # The thread that takes the key out reports: this one, or ``_give_up`` and ``_abandon``.
            mine = running.pop(key, None) is not None
            worker.call = None
            # An exception may have come between the begin and the end of a wait.
            if worker.waits:
                self._end_waits(worker)
            del call  # an idle thread must not keep the last task's data alive
            if killed:
                killed.discard(key)
            if mine:
                outcome.place = place
                outcome.started_ns = started_ns
                outcome.ended_ns = worker.reports_ns = now()
                listener.finished((outcome,))
                worker.reports_ns = 0
                if worker.parked:
                    self._held.discard(worker)
                    self._end_waits(worker)
            elif not self._come_back(worker):
                return
            if type(outcome.value) not in ATOMS or outcome.error is not None:
                # To free it may take long, and this thread has other tasks to run.
                apart = [outcome]
                del outcome
                free_unless_plain(apart)
            else:
                del outcome

    def _limit(self, key: TryKey, call: Call) -> None:
        limit_s = call.spec.walltime_s
        if limit_s is not None:
            self._deadlines.add(key, limit_s + (STEPS_PATIENCE_S if call.steps else PATIENCE_S))

    def _run(self, worker: Worker, key: TryKey, call: Call) -> Outcome:
        """Run one try; when this returns no Killed can be raised any more."""
        try:
            try:
                worker.key = key
                if self._killed and key in self._killed:  # it was to be killed before its thread could be interrupted
                    raise Killed
                func = call.func if call.snapshot is None else call.snapshot.begins(call)
                if call.spec is DEFAULT_SPEC and not call.steps:
                    value = func(*call.args, **call.kwargs)
                else:
                    value = execute(func, call.args, call.kwargs, call.spec, call.steps, self._where(worker, key, call))
                outcome = Outcome(key, Verdict.OK, value)
            except Killed:
                outcome = Outcome(key, Verdict.CANCELLED)
            except BaseException as error:
                fold(error)
                outcome = Outcome(key, Verdict.APP_ERROR, None, presentable(error))
            worker.leave()
        except Killed:  # it came between the end of the task and leave()
            worker.leave()
            outcome = Outcome(key, Verdict.CANCELLED)
        try:
            return outcome
        finally:
            # The traceback of an error holds this frame, which must not hold the error: only Python's collector, on
            # whatever thread it runs, would free such a circle.
            del outcome, call

    def _where(self, worker: Worker, key: TryKey, call: Call) -> NodeContext:
        tell = partial(self._listener.moving, key)
        return NodeContext(
            self.label, self._node, worker.rank, key, self._working_dir, call.spec.walltime_s, False, tell
        )


def _named(call: Call | None) -> str:
    return "a task" if call is None or type(call) is Call else str(call)


def _left_text(label: str, left: Sequence[tuple[Worker, Call | None]]) -> str:
    """Say in one line which tasks still run."""
    if not left:
        return ""
    shown = ", ".join(f"{_named(call)} on thread {worker.name}" for worker, call in left[:_SHOWN])
    more = f" and {len(left) - _SHOWN} more" if len(left) > _SHOWN else ""
    return (
        f"{shown}{more} of executor {label!r}, in code that takes no exception (a blocking call, code in C); what it "
        "comes to is dropped, and it ends with the script"
    )
