"""Adapters for executors of others: ``concurrent.futures`` pools, and those with ``submit(func, *args)``."""

from __future__ import annotations

import concurrent.futures
import inspect
import threading
import time
from abc import abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import BrokenExecutor, Future
from functools import partial
from typing import Any, Protocol

from flow_core import guard
from flow_core.bounded_calls import BoundedCall, within
from flow_core.errors import ConfigurationError, ExecutorBroken, ExecutorClosed, ExecutorError, TaskRefused
from flow_core.executors.reporter import Reporter
from flow_core.executors.reports import TryReports
from flow_core.executors.thread_watch import watch_threads, watched
from flow_core.executors.user_pools import PoolWorkers
from flow_core.folders import current_directory
from flow_core.guard import attribute, is_a, one_line, pass_signal, shown as shown_safely, text_of
from flow_core.interfaces.call import Call, NodeContext, TryKey
from flow_core.interfaces.context import RunContext
from flow_core.interfaces.executor import Executor, ShutdownReport
from flow_core.interfaces.outcome import Loss, LossKind, Outcome, Place, TryListener, Verdict
from flow_core.interfaces.scaling import Load
from flow_core.interfaces.task_fields import HONOURED_BY_ALL, asked_for
from flow_core.interfaces.waiting import Cause, CauseKind, count, tasks_ahead
from flow_core.option_names import known_options
from flow_core.remote.naming import names_globals
from flow_core.remote.parcel import pack_task, unpack_result
from flow_core.remote.parcel_run import run_parcel
from flow_core.remote.run import execute
from flow_core.remote.sampling import TaskWatch
from flow_core.remote.tracebacks import fold
from flow_core.representation import shown

_IN_SPECIFICATIONS = frozenset(("cores", "memory", "disk", "gpus", "running_time_min", "priority"))
_WITHDRAW_S = 0.5  # seconds for a pool that is not of the standard library to say whether a task can be taken back
_CANCEL_S = 2.0  # seconds at the end of a run for such a pool to cancel what it has not begun
_REPORTER_S = 2.0  # seconds for the last reports: what they hold is in memory, or in files of the run


class _OverFutures(Executor):
    """An executor over something that gives a future for each call.

    Whoever takes a key out of ``_outstanding`` reports it, so each is reported once.
    """

    def __init__(self, label: str) -> None:
        if not isinstance(label, str) or not label:
            raise ConfigurationError(f"{type(self).__name__}: label must be text, not {label!r}")
        self.label = label
        self._listener: TryListener | None = None
        self._closed = True
        self._reporter: Reporter | None = None
        self._outstanding: dict[TryKey, Future[Any] | None] = {}
        self._place = Place(label)
        self._submitting = threading.local()
        self._lock = threading.Lock()
        self._reports: TryReports | None = None

    @property
    @abstractmethod
    def foreign(self) -> bool:
        """Whether ``submit`` calls code of others than the standard library's, which may hang."""

    @abstractmethod
    def _hand_over(self, key: TryKey, call: Call) -> Future[Any]:
        """Hand a try to the pool. Raises BrokenExecutor, SerializationError, RuntimeError if it is shut down."""

    @abstractmethod
    def _outcome(self, key: TryKey, result: Any) -> Outcome:
        """Return the outcome of a try from what its future holds."""

    @abstractmethod
    def _slots(self) -> int:
        """Return how many tries run at once, 0 if not known."""

    def _open(self, context: RunContext) -> None:
        """Make the pool ready. Called by ``start``, before any try; raises what the user's function raises."""

    def _close(self, timeout_s: float) -> tuple[str, ...]:
        """Shut the pool down; return what had to be forced."""
        return ()

    # -- Executor

    def start(self, context: RunContext) -> None:
        """Become ready to take tries. Raises ExecutorClosed if another kernel uses it, or as the pool does."""
        if not self._closed:
            raise ExecutorClosed(f"executor {self.label!r} is in use by another kernel: clean that up first")
        self._open(context)
        self._reporter = Reporter(context.listener, f"flow-report-{self.label}")
        # Opened last: submit() needs all of the above.
        self._listener = context.listener
        self._closed = False

    def submit(self, key: TryKey, call: Call, /) -> None:
        """Take one try; one that cannot be pickled is reported as refused."""
        if self._closed:
            raise ExecutorClosed(f"executor {self.label!r} is not started, or was shut down")
        # Before the pool has it: the future may be done, and its callback called, before submit() returns it.
        self._outstanding[key] = None
        # A pool may run the task at once, in this thread: its outcome must not be reported within submit().
        self._submitting.now = True
        try:
            future = self._hand_over(key, call)
            if not callable(attribute(future, "add_done_callback")):
                raise TypeError(f"its pool gave {guard.shown(future)} for a task, which is no Future")
            with self._lock:
                if key in self._outstanding:  # not so if shutdown() has reported it meanwhile
                    self._outstanding[key] = future
            # Not under the lock: for a future that is done it calls ``_done`` here and now.
            future.add_done_callback(partial(self._done, key))
            if self._reports is not None:
                self._reports.wake()
        except TaskRefused as error:
            self._report(Outcome(key, Verdict.REFUSED, error=error))
        except BrokenExecutor as error:
            self._outstanding.pop(key, None)
            raise ExecutorBroken(
                f"executor {self.label!r} is broken ({text_of(error)}): its pool runs nothing any more. Give "
                "FuturesExecutor a function that makes the pool, and it will make a new one"
            ) from error
        except RuntimeError as error:
            self._outstanding.pop(key, None)
            raise ExecutorClosed(
                f"executor {self.label!r}: its pool takes nothing any more: {text_of(error)}"
            ) from error
        except BaseException:
            self._outstanding.pop(key, None)
            raise
        finally:
            self._submitting.now = False

    def cancel(self, keys: Sequence[TryKey], /, *, kill: bool = False) -> None:
        """Cancel tries that the pool has not begun; it cannot end others."""
        for key in keys:
            future = self._outstanding.get(key)
            if future is not None:
                # Its callback reports the cancellation, if the pool had not begun it.
                future.cancel()

    def withdraw(self, key: TryKey, /) -> bool | None:
        """Cancel the pool's future of a try; what that says is the answer. None where the pool does not say in time."""
        future = self._outstanding.get(key)
        if future is None:
            return None
        if not self.foreign:
            return future.cancel()  # its callback reports it
        try:
            return BoundedCall(f"flow-withdraw-{self.label}", future.cancel).wait(_WITHDRAW_S) is True
        except BaseException as error:  # NoAnswerError, or what the user's pool raises: ``cancel`` tells of that
            pass_signal(error)
            return None

    def load(self) -> Load:
        """Return how many tries are outstanding; as many as fit are taken to run."""
        count, slots = len(self._outstanding), self._slots()
        return Load(waiting=max(0, count - slots), running=min(count, slots), slots=slots)

    def why_waiting(self, key: TryKey, /, *, timeout_s: float = 2.0) -> Sequence[Cause]:
        """Say what keeps a try from being done, as far as its pool can be asked."""
        outstanding = list(self._outstanding.items())
        # Keys count up, so smaller ones were submitted before.
        ahead = [future for one, future in outstanding if one < key and not (future is not None and future.done())]
        future = self._outstanding.get(key)
        if key not in self._outstanding or (future is not None and future.done()):
            return ()
        slots = self._slots()
        workers = f"for {count(slots, 'worker')}" if slots else "and does not say how many workers it has"
        tasks = f"it has {count(len(outstanding), 'task')} of ours {workers}"
        if future is not None and future.running():
            return (Cause(CauseKind.RUNNING, f"the pool of {self.label!r} says that it runs, or is next: {tasks}"),)
        text = f"the pool of {self.label!r} has not begun it: {tasks}, {tasks_ahead(len(ahead))}"
        return (Cause(CauseKind.QUEUED if slots else CauseKind.NO_WORKER, text),)

    def shutdown(self, timeout_s: float) -> ShutdownReport:
        """Cancel what waits; what runs is reported as cancelled, and ended only where the pool is our own."""
        began = time.monotonic()
        listener = self._listener
        if self._closed or listener is None:
            return ShutdownReport()
        self._closed = True
        not_cancelled = self._cancel_all(min(timeout_s, _CANCEL_S))
        # A copy of the keys: callbacks of the pool take keys out meanwhile, and each is reported once.
        left = [
            Outcome(key, Verdict.CANCELLED, place=self._place) for key in list(self._outstanding) if self._take(key)
        ]
        if left:
            listener.finished(left)
        forced = self._close(timeout_s)
        if self._reports is not None:
            self._reports.close(min(timeout_s, _REPORTER_S))
            self._reports = None
        if self._reporter is not None:
            self._reporter.close(min(timeout_s, _REPORTER_S))
        return ShutdownReport((*not_cancelled, *forced), time.monotonic() - began)

    # -- how

    def _cancel_all(self, timeout_s: float) -> tuple[str, ...]:
        """Cancel all futures of the pool within the time; return what is to be told of those that do not answer."""
        futures = [future for future in self._outstanding.values() if future is not None]

        def cancel() -> None:
            for future in futures:
                try:
                    future.cancel()
                except BaseException as error:  # of the user's pool; tries are reported as cancelled whatever it says
                    pass_signal(error)

        if not futures:
            return ()
        if not self.foreign:
            cancel()
        elif not within(timeout_s, cancel, f"flow-cancel-{self.label}"):
            return (f"cancel() of a future of the pool of {self.label!r} did not come back within {timeout_s:g} s",)
        return ()

    def _collect(self, context: RunContext) -> None:
        """Have workers report by files: all their tasks if the run wants samples, else those that move files."""
        self._reports = TryReports(context, self.label, lambda: len(self._outstanding))

    def _packed(self, key: TryKey, call: Call) -> bytes:
        """Return a try as bytes. Raises SerializationError."""
        where = NodeContext(self.label, key=key, working_dir=self.working_dir, walltime_s=call.spec.walltime_s)
        reporting = None if self._reports is None else self._reports.of(call)
        blob = None if call.snapshot is None else call.snapshot.blob
        return pack_task(
            call.func, call.args, call.kwargs, call.spec, call.steps, where, reporting, blob, current_directory()
        )

    def _take(self, key: TryKey) -> bool:
        with self._lock:
            if key not in self._outstanding:
                return False
            del self._outstanding[key]
            return True

    def _done(self, key: TryKey, future: Future[Any]) -> None:
        listener = self._listener
        # The callback is on the pool's own thread: one result whose __setstate__ hangs would stop all others.
        if listener is not None and self._may_hang(future):
            if self._take(key):
                listener.ended(((key, partial(self._outcome_of, key, future)),))
        else:
            self._report(self._outcome_of(key, future))

    def _may_hang(self, future: Future[Any]) -> bool:
        """Return whether to unpickle what a future holds may call code of the user's."""
        try:
            result = None if future.cancelled() or future.exception() is not None else future.result()
        except BaseException as failure:  # a future of the user's own: ``_outcome_of`` tells what it raises
            pass_signal(failure)
            return False
        return type(result) is bytes and names_globals(result)

    def _outcome_of(self, key: TryKey, future: Future[Any]) -> Outcome:
        try:
            outcome = self._learnt(key, future)
        except BaseException as failure:  # the pool is the user's: it may hold anything in its future
            pass_signal(failure)
            outcome = Outcome(key, Verdict.APP_ERROR, error=self._nonsense(failure))
        if outcome.place is None:
            outcome.place = self._place
        return outcome

    def _learnt(self, key: TryKey, future: Future[Any]) -> Outcome:
        if future.cancelled():
            return Outcome(key, Verdict.CANCELLED)
        error = future.exception()
        if error is None:
            return self._outcome(key, future.result())
        if is_a(error, BrokenExecutor):
            # The pool does not say which task killed its worker, so the loss counts as the executor's.
            return self._lost(key, f"the pool of executor {self.label!r} broke: {text_of(error)}")
        if is_a(error, ImportError) and str(attribute(error, "name")).partition(".")[0] == "flow_core":
            advice = "install flow_core, of this release, where the workers of that pool run"
            wrong = f"a worker of the pool of executor {self.label!r} has no flow_core ({text_of(error)}): {advice}"
            return Outcome(key, Verdict.REFUSED, error=TaskRefused(wrong))
        # What the pool was given never raises: so this is no error of the app, but of the pool, its workers, its wires.
        return self._lost(key, f"the pool of executor {self.label!r} gave an error of its own: {one_line(error)}")

    def _lost(self, key: TryKey, reason: str) -> Outcome:
        return Outcome(key, Verdict.LOST, loss=Loss(LossKind.EXECUTOR, self._place, reason=reason))

    def _nonsense(self, failure: BaseException) -> ExecutorError:
        if is_a(failure, ExecutorError):
            return failure
        error = ExecutorError(
            f"what the pool of executor {self.label!r} gave for the task cannot be understood ({one_line(failure)}): "
            "its future must hold what the function returned that the pool was given"
        )
        error.__cause__ = failure
        return error

    def _report(self, outcome: Outcome) -> None:
        listener, reporter = self._listener, self._reporter
        if not self._take(outcome.key) or listener is None or reporter is None:
            return
        if getattr(self._submitting, "now", False):
            reporter.report(outcome)
        else:
            listener.finished((outcome,))


class FuturesExecutor(_OverFutures):
    """Runs tasks in any ``concurrent.futures`` pool. The kernel wraps pools that it finds in a Config.

    A thread pool gets tasks as they are. Every other pool gets bytes, so whatever cloudpickle can carry works.
    Starts are reported where the run samples tasks, of tries that run for a second; a try that runs cannot be ended.

    Args:
        label: Name of the executor.
        pool: A pool, which stays the user's: it is never shut down. Or a function that makes one: then it is made at
            each start, made anew when it breaks, and shut down. A pool with an attribute ``honours`` (names of
            ``TASK_FIELDS``) is given what a task asks for of these as ``submit(..., resource_specification={...})``.

    Raises:
        ConfigurationError: an argument is impossible, or the pool declares what its ``submit`` does not take.
    """

    @known_options
    def __init__(
        self, label: str, pool: concurrent.futures.Executor | Callable[[], concurrent.futures.Executor]
    ) -> None:
        super().__init__(label)
        self._make: Callable[[], concurrent.futures.Executor] | None = None
        self._pool: concurrent.futures.Executor | None = None
        self._declared: frozenset[str] | None = None
        if isinstance(pool, concurrent.futures.Executor):
            self._pool = pool
            self._ask_pool()
        elif callable(pool):
            self._make = pool
        else:
            raise ConfigurationError(f"FuturesExecutor {label!r}: {pool!r} is no pool, nor a function that makes one")
        self._renewing = threading.Lock()
        self._watch: TaskWatch | None = None
        self._workers: PoolWorkers | None = None

    @property
    def in_process(self) -> bool:  # type: ignore[override]  # the pool decides it, and may be made at each start
        """Whether the pool is one of threads."""
        return isinstance(self._pool, concurrent.futures.ThreadPoolExecutor)

    @property
    def foreign(self) -> bool:
        """Whether the pool is none of the standard library's."""
        return type(self._pool).__module__.partition(".")[0] != "concurrent"

    @property
    def honours(self) -> frozenset[str]:  # type: ignore[override]  # the pool decides it, and may be made at each start
        """What its pool declares; else what is done where a task runs. Workers of the standard library are not taken
        away, so there any time is left."""
        if self._declared is not None:
            return self._declared
        return HONOURED_BY_ALL if self.foreign else HONOURED_BY_ALL | {"running_time_min", "container"}

    def __repr__(self) -> str:
        return f"FuturesExecutor({self.label!r}, {shown(self._make or self._pool)})"

    def _open(self, context: RunContext) -> None:
        if self._make is not None:
            self._pool = self._make()
            self._ask_pool()
        if isinstance(self._pool, concurrent.futures.ThreadPoolExecutor):
            self._watch = watch_threads(context, self.label, report_starts=True)
        else:
            self._collect(context)
            self._know_workers()

    def _ask_pool(self) -> None:
        submit = getattr(self._pool, "submit", None)
        self._declared = _declared(self.label, self._pool, told="resource_specification" in _parameters(submit))

    def _know_workers(self) -> None:
        if isinstance(self._pool, concurrent.futures.ProcessPoolExecutor):
            self._workers = PoolWorkers(self._pool)

    def _hand_over(self, key: TryKey, call: Call) -> Future[Any]:
        pool = self._pool
        assert pool is not None
        asked = None if self._declared is None else _asked_of_pool(call)
        given: dict[str, Any] = {"resource_specification": asked} if asked else {}
        if isinstance(pool, concurrent.futures.ThreadPoolExecutor):
            walltime_s, tell = call.spec.walltime_s, None
            if self._listener is not None and call.steps:
                tell = partial(self._listener.moving, key)
            where = NodeContext(self.label, key=key, working_dir=self.working_dir, walltime_s=walltime_s, tell=tell)
            # Threads get the objects themselves; only processes need bytes.
            return pool.submit(_run_here, key, call, where, self._place, self._watch, **given)
        data = self._packed(key, call)
        try:
            future = pool.submit(run_parcel, data, **given)
        except BrokenExecutor:
            future = self._renewed(pool).submit(run_parcel, data, **given)
        if self._workers is not None:
            self._workers.note(future)
        return future

    def _renewed(self, broken: concurrent.futures.Executor) -> concurrent.futures.Executor:
        """Return a new pool in the place of a broken one. Raises BrokenExecutor if it cannot be made anew."""
        if self._make is None:
            raise BrokenExecutor("its workers died")
        with self._renewing:
            # Another thread that met the same broken pool may have replaced it by now.
            if self._pool is broken or self._pool is None:
                self._pool = self._make()
                self._know_workers()
                broken.shutdown(wait=False)
            return self._pool

    def _outcome(self, key: TryKey, result: Any) -> Outcome:
        return result if is_a(result, Outcome) else _unpacked(key, result, self.label)

    def _slots(self) -> int:
        return int(getattr(self._pool, "_max_workers", 0) or 0)

    def _close(self, timeout_s: float) -> tuple[str, ...]:
        pool = self._pool
        if self._watch is not None:
            self._watch.close()
        if self._make is None or pool is None:
            return ()
        self._pool = None
        # A private name: shutdown() forgets the processes, and does not end those that run tasks.
        processes = list((getattr(pool, "_processes", None) or {}).values())
        pool.shutdown(wait=False, cancel_futures=True)
        deadline = time.monotonic() + timeout_s
        forced = []
        for process in processes:
            # A second for one that has ended its task; what still runs then is killed.
            process.join(max(0.0, min(1.0, deadline - time.monotonic())))
            if process.is_alive():
                process.kill()
                process.join(max(0.1, deadline - time.monotonic()))
                forced.append(f"process {process.pid} of executor {self.label!r} still ran a task and was killed")
        return tuple(forced)


class SubmitStyle(Protocol):
    """An executor in the seeds' style. ``start()`` and ``shutdown()`` are called where it has them."""

    label: str

    def submit(self, func: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run a function; its second parameter may be ``resource_specification``, a dict."""
        ...


class SubmitExecutor(_OverFutures):
    """Wraps an executor in the seeds' style: ``submit(func, [resource_specification,] *args) -> Future``.

    Its tasks travel as bytes, so it may run them anywhere that ``flow_core`` is installed. What it honours it says
    itself, by an attribute ``honours``; without one it honours what stood in a ``resource_specification`` ever since,
    if its ``submit`` takes one.
    """

    def __init__(self, wrapped: SubmitStyle) -> None:
        super().__init__(wrapped.label)
        self.wrapped = wrapped
        self.managed = bool(getattr(wrapped, "managed", True))
        self.storage_access = getattr(wrapped, "storage_access", None)
        self.working_dir = getattr(wrapped, "working_dir", None)
        self._takes_resources = _takes_resources(wrapped.submit)
        declared = _declared(self.label, wrapped, told=self._takes_resources)
        if declared is not None:
            self.honours = declared
        elif self._takes_resources:
            self.honours = HONOURED_BY_ALL | _IN_SPECIFICATIONS

    @property
    def foreign(self) -> bool:
        """Always: what it wraps is somebody's."""
        return True

    def __repr__(self) -> str:
        return f"SubmitExecutor({self.wrapped!r})"

    def _open(self, context: RunContext) -> None:
        start = getattr(self.wrapped, "start", None)
        if callable(start):
            start()
        self._collect(context)

    def _hand_over(self, key: TryKey, call: Call) -> Future[Any]:
        data = self._packed(key, call)
        if self._takes_resources:
            return self.wrapped.submit(run_parcel, _resources(call), data)
        return self.wrapped.submit(run_parcel, data)

    def _outcome(self, key: TryKey, result: Any) -> Outcome:
        return _unpacked(key, result, self.label)

    def _slots(self) -> int:
        return int(getattr(self.wrapped, "max_threads", 0) or getattr(self.wrapped, "max_workers", 0) or 0)

    def _close(self, timeout_s: float) -> tuple[str, ...]:
        shutdown = getattr(self.wrapped, "shutdown", None)
        if callable(shutdown) and not within(timeout_s, shutdown, f"flow-shutdown-{self.label}"):
            return (f"its own shutdown() did not come back within {timeout_s:g} s, and goes on",)
        return ()


def _declared(label: str, users: object, *, told: bool) -> frozenset[str] | None:
    """Return what a pool or an executor of the user's says that it honours; None where it says nothing.

    Raises:
        ConfigurationError: it says that in another way, or is never told what a task asks for.
    """
    declared = attribute(users, "honours")
    if declared is None:
        return None
    if not isinstance(declared, (set, frozenset, tuple, list)):
        raise ConfigurationError(f"executor {label!r}: honours must be a set of names of fields, not {declared!r}")
    fields = HONOURED_BY_ALL.union(declared)
    if not told and fields != HONOURED_BY_ALL:
        raise ConfigurationError(
            f"executor {label!r} honours {', '.join(map(str, fields - HONOURED_BY_ALL))}, and would never be told of "
            f"it: submit() of {type(users).__name__} must take resource_specification"
        )
    return fields


def _takes_resources(submit: Callable[..., Any]) -> bool:
    return _parameters(submit)[1:2] == ["resource_specification"]


def _parameters(submit: object) -> list[str]:
    try:
        return list(inspect.signature(submit).parameters)  # type: ignore[arg-type]  # what is not callable raises
    except (TypeError, ValueError):
        return []


def _resources(call: Call) -> dict[str, object]:
    wanted = call.spec.resources
    # The others only where they are asked for: executors may refuse what they do not know.
    return {"cores": wanted.cores, "memory": wanted.memory_mb, "disk": wanted.disk_mb, **_asked_of_pool(call)}


def _asked_of_pool(call: Call) -> dict[str, object]:
    """Return what a task asks for that is not done where it runs."""
    return {name: value for name, value in asked_for(call.spec).items() if name not in HONOURED_BY_ALL}


def _run_here(key: TryKey, call: Call, where: NodeContext, place: Place, watch: TaskWatch | None) -> Outcome:
    """Run a try in a thread of the pool."""
    if watch is None:
        return _tried(key, call, where, place)
    return watched(watch, key, partial(_tried, key, call, where, place))


def _tried(key: TryKey, call: Call, where: NodeContext, place: Place) -> Outcome:
    started_ns = time.time_ns()
    try:
        func = call.func if call.snapshot is None else call.snapshot.begins(call)
        value = execute(func, call.args, call.kwargs, call.spec, call.steps, where)
    except BaseException as error:
        fold(error)
        del call  # the traceback holds this frame, which must not hold the task, and so the error
        return Outcome(key, Verdict.APP_ERROR, None, error, None, place, started_ns, time.time_ns())
    return Outcome(key, Verdict.OK, value, None, None, place, started_ns, time.time_ns())


def _unpacked(key: TryKey, data: object, label: str) -> Outcome:
    if not is_a(data, bytes):
        given = (
            f"the pool of {label!r} gave {shown_safely(data)} for the result of the task, and not what the call gave"
        )
        return Outcome(key, Verdict.APP_ERROR, error=ExecutorError(given))
    result = unpack_result(data)
    if result.key not in (0, key):
        mixed = f"the pool of {label!r} gave the result of another task (try {result.key}) for this one (try {key})"
        return Outcome(key, Verdict.APP_ERROR, error=ExecutorError(mixed))
    verdict = Verdict.OK if result.error is None else Verdict.APP_ERROR
    place = Place(label, node=result.node, pid=result.pid)
    return Outcome(
        key, verdict, result.value, result.error, None, place, result.started_ns, result.ended_ns, result.usage
    )
