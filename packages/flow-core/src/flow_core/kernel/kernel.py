"""The dataflow kernel: takes calls of apps, runs each when its inputs exist, settles its future."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from flow_core.active import CALLED_IN_TASK, current_join
from flow_core.apps.definition import NO_OPTIONS, AppDefinition, AppKind, CallOptions
from flow_core.apps.special import resolve_streams
from flow_core.config import Config, checked_config
from flow_core.errors import KernelClosedError, NoDataFlowKernelError
from flow_core.executors.threads import ThreadPoolExecutor, in_worker
from flow_core.files import File
from flow_core.futures.app_future import AppFuture, TaskFiles
from flow_core.futures.callbacks import user_calls
from flow_core.futures.data_future import DataFuture
from flow_core.futures.derived import DerivedFuture
from flow_core.futures.lean import in_callback
from flow_core.graph.core import Core
from flow_core.graph.failures import halted_error, root_cause
from flow_core.graph.retry import Budgets
from flow_core.graph.states import State
from flow_core.graph.task import Task
from flow_core.guard import one_line, pass_signal
from flow_core.interfaces.memoizer import AppIdentity
from flow_core.interfaces.waiting import Cause, CauseKind, count
from flow_core.kernel import assembly, shutdown
from flow_core.kernel.arguments import Arguments, are_plain
from flow_core.kernel.descriptors import fill_standard_descriptors
from flow_core.kernel.directory import current_directory, note_directory
from flow_core.kernel.edges import Edges, tid_of
from flow_core.kernel.explaining import ANSWER_S, Explainer, Overview
from flow_core.kernel.launch import Launcher
from flow_core.kernel.live import Live
from flow_core.kernel.parts import Parts
from flow_core.kernel.pending import Gate
from flow_core.kernel.reactor import Reactor
from flow_core.kernel.remembered import Remembered
from flow_core.kernel.rundir import begin_error, make_run_dir
from flow_core.kernel.standstill import Standstill, sign_of
from flow_core.kernel.summary import Summary, summarize
from flow_core.kernel.telling import Teller, stream_name
from flow_core.kernel.unseen import Unseen, see
from flow_core.observe.pump import EventPump
from flow_core.observe.run_logger import RunLogger, lines_of
from flow_core.remote.run import in_worker as in_worker_process
from flow_core.snapshot.snapshots import Snapshots
from flow_core.staging.manager import StagingManager

if TYPE_CHECKING:
    from flow_core.apps.definition import StdStream
    from flow_core.interfaces.executor import Executor
    from flow_core.interfaces.sinks import RunInfo
    from flow_core.interfaces.waiting import Explanation

_BODIES = "flow-join"
_BODY_THREADS = 500  # started only while all others are busy: bodies may wait for tasks
_DEFINITIONS_KEPT = 1024
_epochs = itertools.count(1)


class DataFlowKernel:
    """Runs the tasks of one Config. Usually made by ``flow.load``.

    All methods may be called by any thread. Several kernels may exist in a process, each with executors of its own.
    As a context manager it is left as ``Config.exit_mode`` says.

    Attributes:
        run_id: Name of the run, unique.
        run_dir: Directory of the run, absolute.
        executors: Executors by label.
        memoizer: What remembers results; None with ``app_cache=False``.
        staging: What moves files.
        pump: Where events go.
    """

    def __init__(self, config: Config | None = None) -> None:
        """Make the run's directory and start everything the Config names.

        Raises:
            ConfigurationError: the Config is wrong.
            BadCheckpoint: an earlier checkpoint cannot be used.
            ExecutorError: an executor could not be started; then nothing is left running.
        """
        config = Config() if config is None else checked_config(config).copy()
        config.validate()
        self.executors = assembly.wrapped_executors(config.executors)
        self.run_id = str(uuid.uuid4())
        self._filled = fill_standard_descriptors()
        self.run_dir: Path = make_run_dir(config.run_dir)
        self._logger = RunLogger("flow.kernel", self.run_id)
        self._tids = itertools.count()
        self._snapshots = Snapshots()
        self._latest = self._snapshots.latest
        self._definitions: dict[tuple[int, object, bool], AppDefinition] = {}
        info = assembly.run_info(config, self.run_id, next(_epochs), self.run_dir)
        self._core = _make_core(config, info.epoch)
        self._reactor = Reactor(self._core, self._logger)
        self._parts = Parts(config, info, self._reactor, self._logger, self.executors)
        self._closing = shutdown.Closing(self._parts)
        try:
            with lines_of(self.run_id):
                self._assemble(config, info, self._parts)
        except BaseException as error:
            self._closing.undo()
            if isinstance(error, OSError):
                raise begin_error(self.run_dir, error) from error
            raise
        self._closing.begin()

    def _assemble(self, config: Config, info: RunInfo, parts: Parts) -> None:
        """Make and start the parts, in the order in which they need each other."""
        parts.run_log = assembly.open_log(config, info)
        labels = ", ".join(self.executors)
        self._logger.info("Run %s of %s began in %s; executors: %s", self.run_id, info.name, self.run_dir, labels)
        if self._filled:
            self._logger.info("Descriptors %s were closed: /dev/null is open there now", self._filled)
        limit = config.max_pending
        self._gate = parts.gate = None if limit is None else Gate(limit, self._core.live.__len__)
        self.memoizer = parts.memoizer = assembly.make_memoizer(config, self.run_dir, self._logger)
        self._note_failed = assembly.noting_failures(self.memoizer)
        sinks = assembly.all_sinks(config)
        self.pump = parts.pump = EventPump(sinks, info, RunLogger("flow.events", self.run_id))
        self.pump.start()
        self._teller = Teller(self.pump, self._logger)
        self.staging = parts.staging = StagingManager(
            config.staging, config.data_management_max_threads, self.run_dir, self._teller.moved, apart=True
        )
        self._core.verbose = self._teller.tries or self._teller.states
        bodies = parts.bodies = ThreadPoolExecutor(label=_BODIES, max_threads=_BODY_THREADS)
        arguments = Arguments(config.dependency_resolver)
        self._edges = Edges(self, self._reactor, arguments)
        self._core.in_order = self._edges.in_order
        self._launcher = Launcher(
            self._reactor,
            self._edges,
            arguments,
            self.staging,
            self.memoizer,
            self.executors,
            bodies,
            config.executor_chooser,
            config.retry_handler,
            self._teller,
            self._logger,
            assembly.users_hooks(config, self.executors),
        )
        self._explainer = Explainer(self._reactor, self._edges, arguments, self.staging)
        self._reactor.perform = self._launcher.perform
        self._reactor.on_ended = self._on_ended
        unseen = parts.unseen = Unseen(config.unseen_failures, self.run_dir, config.initialize_logging)
        self._reactor.failed_as = lambda task: unseen.note(task, self._core)
        assembly.tell_start(self.pump, info, self.executors)
        sampler = assembly.sampler_of(sinks)
        assembly.start_executors(
            (executor, assembly.executor_context(config, label, info, self._reactor, self.pump, sampler))
            for label, executor in {**self.executors, _BODIES: bodies}.items()
        )
        self._sends = not all(executor.in_process for executor in self.executors.values())
        standstill = Standstill(lambda: sign_of(self._reactor, self._held_calls), self.why_waiting, self._logger)
        live = parts.live = Live(self.run_dir, self._asked, standstill.look, self._logger)
        live.start()
        usage = parts.usage = assembly.usage_tracker(config)
        usage.start(len(self.executors))

    # -- calls

    def submit_call(
        self, app: AppDefinition, args: tuple[object, ...], kwargs: dict[str, object], options: CallOptions = NO_OPTIONS
    ) -> AppFuture[Any]:
        """Take one call of an app; return its future at once.

        Waits only with ``Config(max_pending=...)``, while too many tasks are unfinished, and while a sink of events is
        more than 100,000 events behind.

        Raises:
            KernelClosedError: the kernel was cleaned up.
            NoDataFlowKernelError: this is a task in a worker process that was forked from the script.
            ConfigurationError: the app names an executor that does not exist.
            HiddenFutureError: a future is hidden in an argument where it is not waited for.
            DependencyError: with ``lazy_errors=False``, that an earlier task failed.
        """
        if self._gate is not None:
            self._gate.enter()
        if self.pump.congested:
            self._wait_for_sinks()
        if self._parts.refusal is not None:
            if in_worker_process():  # a pool's worker, forked from the script
                raise NoDataFlowKernelError(CALLED_IN_TASK)
            raise KernelClosedError(f"app {app.name!r} was called, but {self._parts.refusal}")
        future: AppFuture[Any] = AppFuture(next(self._tids))
        task = Task(future.tid, app, args, kwargs, options, future, self)
        future._handle = task
        if self._sends or app.cache:
            last = self._latest.get(app)
            if last is not None and last.travels and last.stands():
                task.snapshot = last
            else:
                self._take_snapshot(task)
        if (
            options is NO_OPTIONS
            and app.kind is AppKind.PYTHON
            and not app.cache
            and are_plain(args, kwargs)
            and self._core.halted is None
        ):
            self._launcher.choose(task)
            if self._teller.tasks:
                self._tell_submitted(task, ())
            self._reactor.post(self._core.submitted_placed, task)
        else:
            self._submit_any(task)
        return future

    def submit(
        self,
        func: Callable[..., Any],
        /,
        *args: Any,
        executors: str | Sequence[str] = "all",
        fn_hash: str | None = None,
        cache: bool = False,
        **kwargs: Any,
    ) -> AppFuture[Any]:
        """Call any function as a task.

        Args:
            func: The function.
            args: Its arguments, which may be futures.
            executors: ``"all"``, or labels of those that may run it.
            fn_hash: Ignored; the function's own digest is used.
            cache: Whether its result is remembered.
            kwargs: Its keyword arguments.
        """
        labels = None if executors == "all" else (executors,) if isinstance(executors, str) else tuple(executors)
        name = getattr(func, "__name__", type(func).__name__)
        definition = self._definitions.get((id(func), labels, cache))
        if definition is None:
            definition = AppDefinition(
                func, name, AppKind.PYTHON, labels, cache, AppIdentity(name, func, "python:1"), takes=_ALL_TAKEN
            )
            if len(self._definitions) >= _DEFINITIONS_KEPT:
                self._definitions.clear()
            self._definitions[id(func), labels, cache] = definition  # it keeps the function, so its id stays its own
        return self.submit_call(definition, args, kwargs)

    def _take_snapshot(self, task: Task) -> None:
        """Have a call keep what its function is now, if it may leave this process or is cached."""
        app = task.app
        travels = self._launcher.travels.get(task.options.executors or app.executors)
        if travels is False and not app.cache:
            return
        counts = app.cache and self.memoizer is not None
        if app.kind is AppKind.JOIN:
            travels = False
        elif travels is None:
            travels = self._launcher.may_travel(task)
        if travels or counts:
            task.snapshot = self._snapshots.take(app, travels, counts)

    def _wait_for_sinks(self) -> None:
        """Hold a call back until the sinks have caught up; threads that tasks wait for are never held."""
        if in_worker() or in_callback():
            return
        while self._parts.refusal is None and not self.pump.wait_for_room():
            pass

    def _submit_any(self, task: Task) -> None:
        """Submit a task that may have dependencies, files or a memoized result."""
        halted = self._core.halted
        if halted is not None:
            see(halted[2])
            raise halted_error(task, halted)
        self._launcher.allowed(task)  # raises for unknown labels, where the caller sees it
        if task.app.kind is AppKind.JOIN:
            task.more().joins = True
        above = current_join.get()
        if above is not None:
            task.more().parent = self._core.live.get(above)
        self._give_files(task)
        futures, (parents, foreign, failures) = self._edges.of(task)
        note_directory(task)
        if self._teller.tasks:
            self._tell_submitted(task, futures)
        self._reactor.post(self._core.submitted, (task, parents, len(foreign), failures))
        if foreign:
            self._edges.watch(task, foreign)

    def _give_files(self, task: Task) -> None:
        """Give the future what it tells of outputs and standard streams."""
        options = task.options
        if not options.outputs and options.stdout is None and options.stderr is None:
            return
        stdout, stderr = resolve_streams(task.app, options, task.tid, self.run_dir)
        if stdout is not options.stdout or stderr is not options.stderr:
            task.options = CallOptions(options.spec, options.outputs, stdout, stderr, options.label, options.executors)
        future, tid = task.future, task.tid
        directory = task.more().directory = current_directory()
        outputs = [DataFuture.of_task(future, file.relative_to(directory), tid) for file in options.outputs]
        future._files = TaskFiles(outputs, _stream(stdout, future, tid), _stream(stderr, future, tid))

    def _tell_submitted(self, task: Task, futures: Sequence[Future[Any]]) -> None:
        depends = self._edges.named(futures) if futures else ()
        self._teller.submitted(task, depends, self._launcher.labels(task), current_join.get())

    # -- what futures ask

    def status_of(self, task: Task) -> str:
        """Return the name of a task's state, with all reports taken into account."""
        self._reactor.pump()
        return task.state.name

    def cancel_task(self, task: Task, kill: bool) -> bool:
        """Cancel a task unless it has started; tell whether it is cancelled or will be."""
        return self._reactor.call(lambda: self._core.cancel(task, kill), False)

    def flush_for(self, task: Task) -> None:
        """Send what is buffered on a task's way."""
        executor = task.executor
        if executor is not None:
            self._flush_one(executor)
        elif task.waiting:
            self._flush()

    def why_of(self, task: Task, timeout_s: float) -> Explanation:
        """Say why a task is not done yet."""
        return self._explainer.of(task, timeout_s)

    def _flush(self) -> None:
        for executor in self.executors.values():
            self._flush_one(executor)

    def _flush_one(self, executor: Executor) -> None:
        try:
            executor.flush()
        except BaseException as error:
            pass_signal(error)
            self._logger.error("executor %r: flush() raised %s", executor.label, one_line(error))

    # -- what users ask

    @property
    def config(self) -> Config:
        """The Config in use: a copy of the one that was loaded."""
        return self._parts.config

    @property
    def is_open(self) -> bool:
        """Whether calls are taken: not after ``cleanup``, nor in a forked child."""
        return self._parts.refusal is None

    @property
    def task_count(self) -> int:
        """How many calls were taken."""
        return self.summary().submitted

    def summary(self) -> Summary:
        """Return how far the run is."""
        return summarize(self._reactor)

    def why(self, task: int | Future[Any], timeout_s: float = ANSWER_S) -> Explanation:
        """Say all that keeps a task from being done, as its future's ``why`` does.

        Args:
            task: Its id or its future.
            timeout_s: How long its executor may take to answer, in seconds.

        Raises:
            LookupError: no unfinished task has that id. Those that have ended are known by their futures only.
        """
        if isinstance(task, (AppFuture, DataFuture, DerivedFuture)):
            return task.why(timeout_s)
        tid = _id_of(task)
        found = self._reactor.call(lambda: self._core.live.get(tid), None)
        if found is None:
            known = self.task_count
            ended = f"it has ended: of {known} tasks" if 0 <= tid < known else f"none has that id yet: of {known} tasks"
            raise LookupError(f"task {tid} is not unfinished, {ended} {self.summary().unfinished} are unfinished")
        return self._explainer.of(found, timeout_s)

    def why_waiting(self, timeout_s: float = ANSWER_S) -> Overview:
        """Say why the unfinished tasks are not done: those that are alike together, with why one of them is not.

        Looks at each unfinished task, at about 1 us each; executors are asked for ``timeout_s`` seconds in all.
        """
        return self._explainer.overview(timeout_s, self._held_calls())

    def _asked(self, tid: int | None) -> str:
        """Answer another process. Raises LookupError: there is no such unfinished task."""
        return str(self.why_waiting() if tid is None else self.why(tid))

    def _held_calls(self) -> list[Cause]:
        """Return what holds back calls of apps whose futures are still to come."""
        causes = []
        if self._gate is not None and self._gate.waiting:
            calls = count(self._gate.waiting, "call")
            text = f"{calls} of apps wait until fewer than max_pending={self._gate.limit} tasks are unfinished"
            causes.append(Cause(CauseKind.BACK_PRESSURE, text))
        if self.pump.congested:
            text = f"calls of apps wait for the sinks of events, which are {self.pump.backlog():,} events behind"
            causes.append(Cause(CauseKind.BACK_PRESSURE, text))
        return causes

    def wait_for_current_tasks(self) -> None:
        """Wait until all tasks submitted so far have ended, well or not, and callbacks of theirs that take no 5 s."""
        self._flush()
        for task in self._unfinished():
            task.future._park(None)
        user_calls.drain(shutdown.CALLBACKS_S)

    def checkpoint(self, tasks: Sequence[int | Future[Any]] | None = None) -> Path | None:
        """Write results that are not in the checkpoint yet; return the checkpoint's directory.

        Args:
            tasks: Ids or futures of the tasks to write; None means all.

        Returns:
            The directory, or None where memoization is off.
        """
        if self.memoizer is None:
            return None
        ids = None if tasks is None else [_id_of(task) for task in tasks]
        return self.memoizer.checkpoint(ids)

    def load_checkpoints(self, checkpoints: Sequence[str | PathLike[str]]) -> Mapping[str, Future[object]]:
        """Read more checkpoints: calls made from now on find what is in them.

        Args:
            checkpoints: Directories of checkpoints or of runs, as for ``Config(checkpoint_files=...)``.

        Returns:
            What was found: futures that are done, by the digest of their calls; none where memoization is off.

        Raises:
            BadCheckpoint: one is not there or is none.
        """
        return Remembered({} if self.memoizer is None else self.memoizer.load(checkpoints))

    def cleanup(self, timeout_s: float = 30.0) -> None:
        """End the run: cancel what is unfinished, write the checkpoint, shut down managed executors.

        Idempotent, and safe to call from several threads; returns within about ``timeout_s`` seconds and logs what it
        had to force. Afterwards every future of this kernel is done.

        Raises:
            UnseenFailures: with ``Config(unseen_failures="raise")``, once all is cleaned up, that tasks failed and
                nobody looked.
        """
        self._closing.cleanup(timeout_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        mode = self.config.exit_mode if kind is None else "cleanup"
        if mode == "skip":
            return
        if mode == "wait":
            self.wait_for_current_tasks()
        if kind is None:
            self._closing.tell_unfinished("at the end of the with block")
            self.cleanup()
        else:
            self._closing.cleanup(30.0, raises=False)  # what is being raised comes first

    def __repr__(self) -> str:
        state = "open" if self.is_open else "closed"
        return f"<DataFlowKernel {state} run_dir={str(self.run_dir)!r}>"

    # -- what the reactor asks

    def _on_ended(self, tasks: Sequence[Task]) -> None:
        self._edges.forget()
        if self._gate is not None:
            self._gate.ended()
        teller, unseen = self._teller, self._parts.unseen
        every = teller.tasks or teller.files or teller.debug
        for task in tasks:
            error = task.error
            if error is not None:
                teller.ended(task)
                if unseen is not None:
                    unseen.describe(task)
                if task.state is State.failed and task.rare is not None and self._note_failed is not None:
                    key = task.rare.memo_key
                    if key is not None:
                        self._note_failed(key, task.tid, one_line(root_cause(error)))
            elif every:
                teller.ended(task)

    def _unfinished(self) -> list[Task]:
        nobody: list[Task] = []
        return self._reactor.call(lambda: list(self._core.live.values()), nobody)


def _make_core(config: Config, epoch: int) -> Core:
    budgets = Budgets(config.retries, config.infrastructure_retries, config.max_worker_kills)
    return Core(budgets, epoch=epoch, lazy_errors=config.lazy_errors, asks_price=config.retry_handler is not None)


_ALL_TAKEN = frozenset(("inputs", "outputs", "stdout", "stderr"))


def _id_of(task: int | Future[Any]) -> int:
    if isinstance(task, int):
        return task
    tid = tid_of(task)
    if tid is None:
        raise TypeError(f"ids or futures of tasks are needed, not {task!r}")
    return tid


def _stream(stream: StdStream | None, future: AppFuture[Any], tid: int) -> str | DataFuture | None:
    if stream is None:
        return None
    return DataFuture.of_task(future, stream, tid) if isinstance(stream, File) else stream_name(stream)
