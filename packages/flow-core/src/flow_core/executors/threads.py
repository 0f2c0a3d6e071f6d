"""The executor that needs nothing but this process: a pool of threads."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Sequence
from functools import partial
from queue import SimpleQueue
from typing import Final

from flow_core.errors import ConfigurationError, ExecutorClosed
from flow_core.executors.interrupt import Interruptible, Killed
from flow_core.executors.thread_watch import watch_threads, watched
from flow_core.interfaces.call import DEFAULT_SPEC, Call, NodeContext, TryKey
from flow_core.interfaces.context import RunContext
from flow_core.interfaces.executor import Executor, ShutdownReport
from flow_core.interfaces.outcome import Outcome, Place, Verdict
from flow_core.interfaces.scaling import Load
from flow_core.interfaces.staging import Staging
from flow_core.interfaces.waiting import Cause, CauseKind, count, tasks_ahead
from flow_core.remote.run import execute
from flow_core.remote.tracebacks import fold
from flow_core.representation import expression

_OPTIONS: Final = ("label", "max_threads", "thread_name_prefix", "storage_access", "working_dir", "managed")

_here = threading.local()


def in_worker() -> bool:
    """Tell whether the calling thread belongs to a ThreadPoolExecutor of Flow."""
    return getattr(_here, "working", False)


class ThreadPoolExecutor(Executor):
    """Runs tasks in threads of this process. Suits tasks of any length that wait or that release the GIL.

    Walltime and ``cancel(kill=True)`` raise an exception inside the task; code in C goes on until it returns.
    Resource specifications have no meaning here: each task occupies one thread.

    Args:
        label: Name of the executor, unique in a Config.
        max_threads: Tasks that run at once. Threads are started when they are first needed.
        thread_name_prefix: Beginning of the threads' names; the label if empty.
        storage_access: Staging methods that replace the defaults.
        working_dir: Directory for staged files; None means the current one.
        managed: Whether the kernel shuts it down.

    Raises:
        ConfigurationError: an option has an impossible value.
    """

    kills = True
    in_process = True

    def __init__(
        self,
        label: str = "threads",
        max_threads: int = 2,
        thread_name_prefix: str = "",
        storage_access: Sequence[Staging] | None = None,
        working_dir: str | None = None,
        managed: bool = True,
    ) -> None:
        if isinstance(max_threads, bool) or not isinstance(max_threads, int) or max_threads < 1:
            raise ConfigurationError(
                f"ThreadPoolExecutor: max_threads must be a whole number of at least 1, not {max_threads!r}"
            )
        if not isinstance(label, str) or not label:
            raise ConfigurationError(f"ThreadPoolExecutor: label must be text, not {label!r}")
        self.label = label
        self.max_threads = max_threads
        self.thread_name_prefix = thread_name_prefix
        self.storage_access = storage_access
        self.working_dir = working_dir
        self.managed = managed
        self._pool: _Pool | None = None

    @property
    def scaling_enabled(self) -> bool:
        """Always False: threads do not come in blocks."""
        return False

    def start(self, context: RunContext) -> None:
        """Become ready to take tries. Raises ExecutorClosed if it runs already, for another kernel."""
        if self._pool is not None and not self._pool.closed:
            raise ExecutorClosed(
                f"executor {self.label!r} is in use by another kernel: clean that up first, or make another executor"
            )
        self._pool = _Pool(self, context)

    def submit(self, key: TryKey, call: Call, /) -> None:
        """Take one try."""
        pool = self._pool
        if pool is None:
            raise ExecutorClosed(f"executor {self.label!r} was not started")
        pool.submit(key, call)

    def cancel(self, keys: Sequence[TryKey], /, *, kill: bool = False) -> None:
        """Cancel tries that wait; with ``kill`` also interrupt those that run."""
        if self._pool is not None:
            self._pool.cancel(keys, kill)

    def load(self) -> Load:
        """Return how many tries wait and run."""
        pool = self._pool
        if pool is None or pool.closed:
            return Load()
        return Load(waiting=len(pool.waiting), running=len(pool.running), slots=self.max_threads)

    def why_waiting(self, key: TryKey, /, *, timeout_s: float = 2.0) -> Sequence[Cause]:
        """Say what keeps a try from being done."""
        pool = self._pool
        return () if pool is None else pool.why_waiting(key)

    def shutdown(self, timeout_s: float) -> ShutdownReport:
        """Give back what waits, interrupt what runs, and wait for the threads; those that go on are named and left.

        Threads are daemons: one that does not end does not keep the process alive.
        """
        return ShutdownReport() if self._pool is None else self._pool.shutdown(timeout_s)

    def scale_out(self, workers: int = 1) -> None:
        """Not possible. Raises NotImplementedError."""
        raise NotImplementedError("a ThreadPoolExecutor does not scale: set max_threads")

    def scale_in(self, blocks: int) -> None:
        """Not possible. Raises NotImplementedError."""
        raise NotImplementedError("a ThreadPoolExecutor does not scale: set max_threads")

    def __repr__(self) -> str:
        return expression(self, _OPTIONS)


class _Worker(Interruptible):
    """One thread of a pool."""

    __slots__ = ("place", "rank", "thread")

    def __init__(self, rank: int, place: Place) -> None:
        super().__init__()
        self.rank = rank
        self.place = place
        self.thread: threading.Thread | None = None


class _Pool:
    """What an executor is between a start and a shutdown.

    Whoever takes a key out of ``waiting`` or ``running`` reports it; so each is reported once and no lock is needed.
    """

    def __init__(self, executor: ThreadPoolExecutor, context: RunContext) -> None:
        self.label = executor.label
        self.closed = False
        self.waiting: dict[TryKey, Call] = {}
        self.running: dict[TryKey, _Worker] = {}
        self._executor = executor
        self._listener = context.listener
        self._queue: SimpleQueue[TryKey | None] = SimpleQueue()
        self._workers: list[_Worker] = []
        self._missing = executor.max_threads
        self._lock = threading.Lock()
        self._node = socket.gethostname()
        self._report: ShutdownReport | None = None
        self._watch = watch_threads(context, executor.label)

    def submit(self, key: TryKey, call: Call) -> None:
        if self.closed:
            raise ExecutorClosed(f"executor {self.label!r} was shut down")
        self.waiting[key] = call
        self._queue.put(key)
        if self._missing and len(self.waiting) + len(self.running) > len(self._workers):
            self._grow()
        if self._closed() and self.waiting.pop(key, None) is not None:
            raise ExecutorClosed(f"executor {self.label!r} was shut down")

    def _closed(self) -> bool:
        """Look again: another thread may have closed the pool meanwhile."""
        return self.closed

    def cancel(self, keys: Sequence[TryKey], kill: bool) -> None:
        outcomes = [Outcome(key, Verdict.CANCELLED) for key in keys if self.waiting.pop(key, None) is not None]
        if outcomes:
            self._listener.finished(outcomes)
        for key in keys if kill else ():
            worker = self.running.get(key)
            if worker is not None:
                worker.kill(key)

    def why_waiting(self, key: TryKey) -> list[Cause]:
        worker = self.running.get(key)
        if worker is not None:
            name = "" if worker.thread is None else f" {worker.thread.name}"
            return [Cause(CauseKind.RUNNING, f"thread{name} runs it")]
        waiting = list(self.waiting)
        if key not in self.waiting:
            return []
        ahead = waiting.index(key) if key in waiting else 0
        threads = count(self._executor.max_threads, "thread")
        busy = (
            f"{len(self.running)} of {threads} of executor {self.label!r} {'is' if len(self.running) == 1 else 'are'}"
        )
        return [Cause(CauseKind.QUEUED, f"{tasks_ahead(ahead)}, and {busy} busy (max_threads)")]

    def shutdown(self, timeout_s: float) -> ShutdownReport:
        began = time.monotonic()
        with self._lock:
            if self._report is not None:
                return self._report
            self.closed = True
            self._missing = 0
            self._give_back()
            for _ in self._workers:
                self._queue.put(None)
            self.cancel(list(self.running), kill=True)
            self._join(began + timeout_s)
            forced = self._abandon()
            if self._watch is not None:
                self._watch.close()
            self._report = ShutdownReport(forced, time.monotonic() - began)
            return self._report

    def _give_back(self) -> None:
        outcomes = [
            Outcome(key, Verdict.RETURNED) for key in list(self.waiting) if self.waiting.pop(key, None) is not None
        ]
        if outcomes:
            self._listener.finished(outcomes)

    def _join(self, deadline: float) -> None:
        for worker in self._workers:
            if worker.thread is not None and worker.thread is not threading.current_thread():
                worker.thread.join(max(0.0, deadline - time.monotonic()))

    def _abandon(self) -> tuple[str, ...]:
        """Report the tries of threads that did not end as cancelled; return a sentence for each."""
        forced = []
        for key, worker in list(self.running.items()):
            if self.running.pop(key, None) is not None:
                name = "" if worker.thread is None else worker.thread.name
                forced.append(f"thread {name} of executor {self.label!r} still runs its task and was left behind")
                self._listener.finished([Outcome(key, Verdict.CANCELLED, place=worker.place)])
        return tuple(forced)

    # -- the threads

    def _grow(self) -> None:
        with self._lock:
            if not self._missing:
                return
            self._missing -= 1
            rank = len(self._workers)
            worker = _Worker(rank, Place(self.label, node=self._node, worker=rank, pid=os.getpid()))
            self._workers.append(worker)
            name = f"{self._executor.thread_name_prefix or self.label}_{rank}"
            worker.thread = threading.Thread(target=self._work, args=(worker,), name=name, daemon=True)
        worker.thread.start()

    def _work(self, worker: _Worker) -> None:
        _here.working = True
        worker.ident = threading.get_ident()
        take, waiting, running, listener = self._queue.get, self.waiting, self.running, self._listener
        place, now = worker.place, time.time_ns
        watch = self._watch
        while True:
            key = take()
            if key is None:
                return
            call = waiting.pop(key, None)
            if call is None:
                continue
            running[key] = worker
            if self._missing and waiting and len(running) >= len(self._workers):
                self._grow()  # submit() may have taken this thread for idle
            started_ns = now()
            listener.started(((key, started_ns, place),))
            if watch is None:
                outcome = self._run(worker, key, call)
            else:
                outcome = watched(watch, key, partial(self._run, worker, key, call))
            del call  # an idle thread must not keep the last task's data alive
            if running.pop(key, None) is not None:
                outcome.place = place
                outcome.started_ns = started_ns
                outcome.ended_ns = now()
                listener.finished((outcome,))
            del outcome

    def _run(self, worker: _Worker, key: TryKey, call: Call) -> Outcome:
        """Run one try; when this returns no Killed can be raised any more."""
        try:
            try:
                worker.key = key
                if call.spec is DEFAULT_SPEC and not call.steps:
                    value = call.func(*call.args, **call.kwargs)
                else:
                    value = execute(
                        call.func, call.args, call.kwargs, call.spec, call.steps, self._where(worker, key, call)
                    )
                outcome = Outcome(key, Verdict.OK, value)
            except Killed:
                outcome = Outcome(key, Verdict.CANCELLED)
            except BaseException as error:
                fold(error)
                outcome = Outcome(key, Verdict.APP_ERROR, None, error)
            worker.leave()
        except Killed:  # it came between the end of the task and leave()
            worker.leave()
            outcome = Outcome(key, Verdict.CANCELLED)
        return outcome

    def _where(self, worker: _Worker, key: TryKey, call: Call) -> NodeContext:
        return NodeContext(
            self.label, self._node, worker.rank, key, self._executor.working_dir, call.spec.walltime_s, False
        )
