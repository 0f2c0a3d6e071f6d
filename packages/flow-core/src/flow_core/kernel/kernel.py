"""Dataflow kernel: takes calls of apps, runs each when its inputs exist, settles its future."""

from __future__ import annotations

import itertools
import logging
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from flow_core.active import CALLED_IN_TASK, current_join
from flow_core.apps.definition import JOIN, NO_OPTIONS, PYTHON, AppDefinition, CallOptions
from flow_core.apps.fitting import Fitting
from flow_core.apps.special import AUTO_LOGNAME, auto_name, checked_stream, resolve_streams
from flow_core.config import Config, checked_config, checked_executors
from flow_core.config_effects import ineffective_options
from flow_core.errors import BadStdStreamFile, KernelClosedError, NoDataFlowKernelError
from flow_core.executors.threads import ThreadPoolExecutor, in_worker
from flow_core.files import File
from flow_core.folders import current_directory
from flow_core.futures.app_future import AppFuture, TaskFiles
from flow_core.futures.callbacks import packing_calls, user_calls
from flow_core.futures.data_future import DataFuture
from flow_core.futures.derived import DerivedFuture
from flow_core.futures.lean import in_callback
from flow_core.graph.failures import halted_error, root_cause, tid_of
from flow_core.graph.graph_core import GraphCore
from flow_core.graph.retry import Budgets
from flow_core.graph.states import FAILED
from flow_core.graph.task import PLAIN, Task
from flow_core.guard import one_line, pass_signal
from flow_core.hooks import Calling, hook_name, is_own
from flow_core.interfaces.call import TaskSpec, TryKey
from flow_core.interfaces.executor import Executor
from flow_core.interfaces.memoizer import AppIdentity
from flow_core.interfaces.outcome import Place
from flow_core.interfaces.staging import Brought, Transfer
from flow_core.interfaces.waiting import Cause, CauseKind, count
from flow_core.kernel import assembly, run_record, shutdown
from flow_core.kernel.arguments import Arguments, are_plain
from flow_core.kernel.backpressure import SubmissionLimiter
from flow_core.kernel.call_dependencies import CallDependencies
from flow_core.kernel.components import KernelComponents
from flow_core.kernel.descriptors import fill_standard_descriptors
from flow_core.kernel.directory import note_directory
from flow_core.kernel.explaining import ANSWER_S, Explainer, Overview
from flow_core.kernel.honouring import check_warning
from flow_core.kernel.launch import EffectHandler
from flow_core.kernel.live import LiveQueries
from flow_core.kernel.live_answers import LiveAnswers
from flow_core.kernel.loaded_checkpoints import LoadedCheckpoints
from flow_core.kernel.output_owners import OutputOwners, waits_for
from flow_core.kernel.progress import NodeFiles, ProgressTicker
from flow_core.kernel.reactor import Reactor
from flow_core.kernel.rundir import begin_error, make_run_dir
from flow_core.kernel.standstill import Standstill, sign_of
from flow_core.kernel.summary import Summary, summarize
from flow_core.kernel.task_events import TaskEventEmitter, stream_name
from flow_core.kernel.task_view import LiveTasks, TaskView
from flow_core.kernel.unseen import Unseen, see
from flow_core.observe.pump import EventPump
from flow_core.observe.run_logger import RunLogger, lines_of
from flow_core.own_files import owners
from flow_core.remote.run import in_worker as in_worker_process
from flow_core.representation import html_table
from flow_core.snapshot.snapshots import Snapshots
from flow_core.staging.at_call import check_call
from flow_core.staging.manager import StagingManager
from flow_core.without_effect import warn_of

if TYPE_CHECKING:
    from flow_core.apps.definition import StdStream
    from flow_core.config import AnyExecutor
    from flow_core.graph.task import SharedParents
    from flow_core.interfaces.sinks import RunInfo
    from flow_core.interfaces.waiting import Explanation
    from flow_core.snapshot.finder import FunctionLooks
    from flow_core.staging.batch import Moving

_BODIES = "flow-join"
_BODY_THREADS = 500  # at most; one is started only while all others are busy, since bodies may wait for tasks
_DEFINITIONS_KEPT = 1024  # functions of submit(); for scripts that make a new one each time; only the magnitude matters
_FN_HASH = "fn_hash has no effect: the digest of the function itself is used"
_NOT_FOUND: tuple[tuple[()], tuple[tuple[()], tuple[()], tuple[()]]] = (), ((), (), ())
_epochs = itertools.count(1)  # of kernels in this process: keys of an earlier one are unknown to the next


class DataFlowKernel:
    """Runs the tasks of one Config. Usually made by ``flow.load``.

    All methods may be called by any thread. Several kernels may exist in a process, each with executors of its own.
    As a context manager it is left as ``Config.exit_mode`` says.

    Attributes:
        run_id: Name of the run, unique.
        run_dir: Directory of the run, absolute.
        executors: Executors by label.
        memoizer: Memoizer that remembers results; None with ``app_cache=False``.
        staging: Staging manager, which moves files.
        pump: Event pump, which hands events to the sinks.
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
        # Whatever may be refused is refused before the run directory is made: a wrong Config leaves none behind.
        self.executors = assembly.wrapped_executors(config.executors)
        check_warning(self.executors, config.warn_before_end_s)
        self.run_id = str(uuid.uuid4())
        # Before any file is opened: a log that was given descriptor 2 would get all that is written to standard error.
        self._filled = fill_standard_descriptors()
        self.run_dir: Path = make_run_dir(config.run_dir, config.run_dir_mode, owners(config.trust_owner))
        self._logger = RunLogger("flow.kernel", self.run_id)
        self._tids = itertools.count()
        self._snapshots = Snapshots(self._rebound, self._rebound_in_run)
        self._latest = self._snapshots.latest
        self._latest_live = self._snapshots.latest_live
        self._told_specs: dict[int, tuple[TaskSpec, TaskSpec]] = {}
        self._definitions: dict[tuple[int, object, bool, str], tuple[AppDefinition, Fitting]] = {}
        info = self._info = assembly.run_info(config, self.run_id, next(_epochs), self.run_dir)
        self._adding = threading.Lock()
        self._core = _make_core(config, info.epoch)
        self._reactor = Reactor(self._core, self._logger)
        self._parts = KernelComponents(config, info, self._reactor, self._logger, self.executors)
        self._closing = shutdown.KernelShutdown(self._parts)
        try:
            with lines_of(self.run_id):
                self._assemble(config, info, self._parts)
        except BaseException as error:
            self._closing.undo()
            if isinstance(error, OSError):
                raise begin_error(self.run_dir, error) from error
            raise
        self._closing.begin()

    def _assemble(self, config: Config, info: RunInfo, parts: KernelComponents) -> None:
        """Make and start the parts, in the order in which they need each other."""
        parts.run_log = assembly.open_log(config, info)
        labels = ", ".join(self.executors)
        self._logger.info("Run %s of %s began in %s; executors: %s", self.run_id, info.name, self.run_dir, labels)
        parts.record = run_record.begun(info, self.executors, config.monitoring is not None)
        run_record.write(self.run_dir, parts.record)
        for sentence in ineffective_options(config):
            self._logger.warning("Config: %s", sentence)
        if self._filled:
            self._logger.info("Descriptors %s were closed: /dev/null is open there now", self._filled)
        limit = config.max_pending
        self._gate = parts.gate = None if limit is None else SubmissionLimiter(limit, self._core.live.__len__)
        self.memoizer = parts.memoizer = assembly.make_memoizer(config, self.run_dir, self._logger)
        self._note_failed = assembly.noting_failures(self.memoizer)
        sinks = assembly.all_sinks(config)
        self.pump = parts.pump = EventPump(sinks, info, RunLogger("flow.events", self.run_id))
        with assembly.watched_begin(sinks):
            self.pump.start()
        self._emitter = TaskEventEmitter(self.pump, self._logger)
        self.staging = parts.staging = StagingManager(
            config.staging,
            config.data_management_max_threads,
            self.run_dir,
            self._on_moved,
            apart=True,
            hook_timeout_s=config.hook_timeout,
        )
        # The very dict of the graph: what one node has read, later stagings are held to.
        self.staging.versions = self._core.versions
        if self.memoizer is not None and is_own(self.memoizer):
            self.staging.ask_earlier(self.memoizer.file_versions)
        self._core.verbose = self._emitter.tries or self._emitter.states
        bodies = parts.bodies = ThreadPoolExecutor(label=_BODIES, max_threads=_BODY_THREADS)
        arguments = Arguments(config.dependency_resolver)
        self._asks_resolver = not arguments.quick
        self._edges = CallDependencies(self, self._reactor, arguments)
        self._core.in_order = self._edges.in_order
        self._launcher = EffectHandler(
            self._reactor,
            self._edges,
            arguments,
            self.staging,
            self.memoizer,
            self.executors,
            bodies,
            config.executor_chooser,
            config.retry_handler,
            self._emitter,
            self._logger,
            assembly.users_hooks(config, self.executors),
            config.hook_timeout,
        )
        self._only = self._launcher.only
        if config.warn_before_end_s is not None:
            # In the place of the method, so that calls of other runs pay for no test.
            self.submit_call = self._submit_told  # type: ignore[method-assign]
        self._owners = OutputOwners(config.output_conflicts, self._waits_for, self._emitter.warn_once)
        self._node_files = NodeFiles(lambda key: self._core.tries.get(key), self._emitter)
        self._reactor.on_moving = self._node_files.moving
        self._reactor.on_moved = self._node_files.moved
        if self._emitter.files:
            ticker = parts.ticker = ProgressTicker(self.staging.moves.all, self._emitter)
            self.staging.moves.on_begun = ticker.begun
        self._explainer = Explainer(self._reactor, self._edges, arguments, self.staging, self._node_files)
        self._reactor.perform = self._launcher.perform
        self._reactor.on_ended = self._on_ended
        unseen = parts.unseen = Unseen(config.unseen_failures, self.run_dir, config.initialize_logging)
        self._reactor.failed_as = lambda task: unseen.note(task, self._core)
        # Sinks get the begin of the run before any event of its executors.
        assembly.report_start(self.pump, info, self.executors)
        with assembly.watched_begin(sinks):
            sampler = self._sampler = assembly.sampler_of(sinks)
        # After the parts above, since an executor may report at once.
        assembly.start_executors(
            (executor, assembly.executor_context(config, label, info, self._reactor, self.pump, sampler))
            for label, executor in {**self.executors, _BODIES: bodies}.items()
        )
        self._sends = not all(executor.in_process for executor in self.executors.values())
        self._snapshots.stays = any(executor.in_process for executor in self.executors.values())
        standstill = Standstill(lambda: sign_of(self._reactor, self._held_calls), self.why_waiting, self._logger)
        answers = LiveAnswers(
            self._reactor, self.executors, parts.failures, self._held_calls, self._asked, self.cancel_task
        )
        live = parts.live = LiveQueries(self.run_dir, answers.by_name(), lambda: self._look(standstill), self._logger)
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
            TaskRefused: the call asks for what none of its executors honours, or what one does not that it names.
            NoStagingError: a file is named that none of the app's executors could ever move.
            HiddenFutureError: a future is hidden in an argument where it is not waited for.
            DependencyError: with ``lazy_errors=False``, that an earlier task failed.
        """
        # Before an id is taken: a call that waits here, or that is refused, is no task yet.
        if self._gate is not None:
            self._gate.enter()
        if self.pump.congested:
            self._wait_for_sinks()
        if self._parts.refusal is not None:
            if in_worker_process():  # a pool's worker, forked from the script
                raise NoDataFlowKernelError(CALLED_IN_TASK)
            raise KernelClosedError(f"app {app.name!r} was called, but {self._parts.refusal}")
        tid = next(self._tids)
        future: AppFuture[Any] = AppFuture(tid)
        task = Task(tid, app, args, kwargs, options, future, self)
        future._handle = task
        # Threads use the live objects: of a call that stays in the process and is not cached only bindings are kept.
        if self._sends or app.cache:
            last = self._latest.get(app)
            if last is not None and last.travels and last.stands():
                task.snapshot = last
            else:
                self._take_snapshot(task)
        elif self._latest_live.get(app, app) is not None:  # not yet looked at, or there are names to be watched
            task.snapshot = self._snapshots.live(app)
        only = self._only.get(app.executors)
        if (
            options is NO_OPTIONS
            and app.kind is PYTHON
            and not app.cache
            and are_plain(args, kwargs)
            and self._core.halted is None
            # A chooser of the user's own may hang: the caller must not wait for it.
            and (only is not None or not self._launcher.asks_chooser(task))
        ):
            # The shortest way, for most calls: nothing to wait for, stage or look up, so the graph launches it at once.
            task.holds = PLAIN
            if only is None:
                self._launcher.choose(task)
            else:
                task.executor = only
            if self._emitter.tasks:
                self._report_submitted(task, ())
            self._reactor.post(self._core.submitted_placed, task)
        else:
            self._submit_any(task)
        return future

    def _submit_told(
        self, app: AppDefinition, args: tuple[object, ...], kwargs: dict[str, object], options: CallOptions = NO_OPTIONS
    ) -> AppFuture[Any]:
        """Take one call, which is told of the end of its block where its app does not say so. As ``submit_call``."""
        if app.kind is not JOIN and app.gather is None and options.spec.warn_before_end_s is None:
            options = self._told(options)
        return DataFlowKernel.submit_call(self, app, args, kwargs, options)

    def _told(self, options: CallOptions) -> CallOptions:
        """Return options with the Config's warning; specifications that are the same stay one object."""
        # By identity, as specifications are shared; the entry keeps the key alive.
        found = self._told_specs.get(id(options.spec))
        if found is None:
            told = replace(options.spec, warn_before_end_s=float(self.config.warn_before_end_s or 0))
            if len(self._told_specs) >= _DEFINITIONS_KEPT:
                self._told_specs.clear()
            found = self._told_specs[id(options.spec)] = options.spec, told
        return replace(options, spec=found[1])

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
            fn_hash: Without effect, and a warning where it is given: the function's own digest is used.
            cache: Whether its result is remembered.
            kwargs: Its keyword arguments.

        Raises:
            TypeError: the arguments do not fit the function.
            FlowError: as ``submit_call``.
        """
        if fn_hash is not None:
            warn_of("submit()", [_FN_HASH])
        labels = None if executors == "all" else (executors,) if isinstance(executors, str) else tuple(executors)
        return self.submit_function(func, args, kwargs, labels, cache=cache)

    def submit_function(
        self,
        func: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        labels: tuple[str, ...] | None = None,
        name: str = "",
        cache: bool = False,
    ) -> AppFuture[Any]:
        """Call any function as a task, as ``submit``: its keywords are apart from those of the function here.

        Args:
            func: The function.
            args: Its arguments, which may be futures.
            kwargs: Its keyword arguments.
            labels: Labels of the executors that may run it; None means all.
            name: What its tasks are called; the function's own name where it is empty.
            cache: Whether its result is remembered.
        """
        known = self._definitions.get((id(func), labels, cache, name))
        if known is None:
            called = name
            name = name or getattr(func, "__name__", type(func).__name__)
            definition = AppDefinition(
                func, name, PYTHON, labels, cache, AppIdentity(name, func, "python:1"), takes=_ALL_TAKEN
            )
            known = definition, Fitting(func, name)
            if len(self._definitions) >= _DEFINITIONS_KEPT:
                self._definitions.clear()
            self._definitions[id(func), labels, cache, called] = known  # it keeps the function, so its id stays its own
        definition, fitting = known
        if (len(args), *kwargs) not in fitting.fits:
            wrong = fitting.error(args, kwargs)
            if wrong is not None:
                raise wrong
        return self.submit_call(definition, args, kwargs)

    def _take_snapshot(self, task: Task) -> None:
        """Have a call keep what its function is now, if it may leave this process or is cached."""
        before = packing_calls.enter(lambda: f"the look at what the function of {task} names")
        try:
            self._look_at_function(task)
        finally:
            packing_calls.leave(before)

    def _look_at_function(self, task: Task) -> None:
        app = task.app
        travels = self._launcher.travels.get(task.options.executors or app.executors)
        if travels is False and not app.cache:
            task.snapshot = self._snapshots.live(app)
            return
        counts = app.cache and self.memoizer is not None
        if app.kind is JOIN:
            travels = False
        elif travels is None:
            travels = self._launcher.may_travel(task)
        if travels or counts:
            task.snapshot = taken = self._snapshots.take(app, travels, counts)
            if travels and not counts and (taken.looks.unknown or taken.looks.mains) and app.cache_globals != "named":
                self._tell_hidden(task, taken.looks)
        else:
            task.snapshot = self._snapshots.live(app)

    def _tell_hidden(self, task: Task, looks: FunctionLooks) -> None:
        """Say what a function takes that cannot be found in it, and so may not travel, or as it was earlier."""
        app, further = task.app, "Name such globals, or pass them as arguments (cache_globals='named' silences this)"
        if looks.unknown:
            self._emitter.warn_once(
                app,
                "%s goes to another process, and takes globals by names that show only as it runs (globals()[...], "
                "f_globals, eval, exec), in %s: there they may be missing, or as they were at an earlier call. %s",
                task,
                ", ".join(f"{name}()" for name in looks.unknown),
                further,
            )
        if looks.mains:
            self._emitter.warn_once(
                app,
                "%s goes to another process, and takes __main__ as a module, in %s: there that is not the script, or "
                "the script as it was earlier. %s",
                task,
                ", ".join(f"{name}()" for name in looks.mains),
                further,
            )

    def _rebound(self, app: AppDefinition, call: object, live: tuple[str, ...], fixed: tuple[str, ...]) -> None:
        """Say that a call begins when names are bound to something else than when it was made."""
        if live:
            self._emitter.warn_once(
                app,
                "%s runs on a thread, with %s as it is now and not as it was at the call: what is shared uses it, or "
                "tasks may be told something by it. Pass such a value as an argument, wait for each call before the "
                "next change, or run the app in another process. Further such calls of this app are not mentioned",
                call,
                ", ".join(live),
            )
        if fixed:
            self._emitter.once_about(
                app, "%s runs on a thread, with %s as it was at the call; it is other by now", call, ", ".join(fixed)
            )

    def _rebound_in_run(self, app: AppDefinition, snapshot: object, names: tuple[str, ...]) -> None:
        """Say that names were bound anew while calls run that had them as they were; later calls keep what they had."""
        running = [task for task in list(self._core.live.values()) if task.snapshot is snapshot and task.started]
        if running:
            more = f" and {len(running) - 1} more" if running[1:] else ""
            self._emitter.warn_once(
                app,
                "%s%s began on threads before %s was bound anew, and may see it as it is now; later calls see it as it "
                "was when they were made",
                running[0],
                more,
                ", ".join(names),
            )

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
            # The error raised here names that failure, so it counts as looked at.
            see(halted[2])
            raise halted_error(task, halted)
        executors = self._launcher.allowed(task)  # raises where the caller sees it
        if task.app.kind is JOIN:
            task.more().joins = True
        above = current_join.get()
        if above is not None:
            task.more().parent = self._core.live.get(above)
        self._give_files(task)
        if self._asks_resolver:
            found = self._edges.of_apart(task, self._parts.config.hook_timeout)
        else:
            found = self._edges.of(task)
        searched = isinstance(found, tuple)
        futures, (parents, foreign, failures) = found if isinstance(found, tuple) else _NOT_FOUND
        if task.future._files is not None or not task.holds:  # else there are no files in it
            check_call(self.staging, task, executors)
        if task.future._files is not None:
            self._own_outputs(task, parents)
        note_directory(task)
        if self._emitter.tasks:
            self._report_submitted(task, futures)
        # A search that goes on is what the task waits for: it counts as one future.
        given = (task, parents, len(foreign) if searched else 1, failures)
        if futures or not searched:
            self._reactor.post(self._core.submitted, given)
        else:  # all arguments are as the caller gives them, and are packed before the call returns
            self._launcher.during_call(task, lambda: self._reactor.post(self._core.submitted, given))
        # After the event: a foreign future that is done calls back at once, and the graph must know the task by then.
        if foreign:
            self._edges.watch(task, foreign)
        if not isinstance(found, tuple):
            self._edges.watch_search(task, found)

    def _give_files(self, task: Task) -> None:
        """Give the future its outputs and standard streams."""
        options = task.options
        if not options.outputs and options.stdout is None and options.stderr is None:
            return
        stdout, stderr = resolve_streams(options, lambda kind: self._auto_stream(task, kind))
        if stdout is not options.stdout or stderr is not options.stderr:
            task.options = CallOptions(options.spec, options.outputs, stdout, stderr, options.label, options.executors)
        future, tid = task.future, task.tid
        directory = task.more().directory = current_directory()
        # Relative paths mean the directory of the call: the script may have moved on when the task runs.
        outputs = [DataFuture.of_task(future, file.relative_to(directory), tid) for file in options.outputs]
        future._files = TaskFiles(outputs, _stream(stdout, future, tid), _stream(stderr, future, tid))

    def _auto_stream(self, task: Task, kind: str) -> StdStream:
        """Return the file that AUTO_LOGNAME stands for. Raises HookError, BadStdStreamFile."""
        autopath = self.config.std_autopath
        if autopath is None:
            return auto_name(kind, task.app.name, task.options.label, task.tid, self.run_dir)
        # On the thread of the call, like what it would do itself; the log says where the call hangs if it does.
        before = packing_calls.enter(lambda: f"{hook_name('std_autopath', autopath)}, called for {task},")
        try:
            with Calling(task, "std_autopath", autopath) as calling:
                found = autopath(TaskView(task), kind)
                if found is None or found == AUTO_LOGNAME:
                    calling.gave(found, f"a path, a pair (path, mode) or a File for {kind}")
                stream = checked_stream(found, kind, task.app.name)
        except BadStdStreamFile as error:
            raise BadStdStreamFile(f"{error} ({hook_name('std_autopath', autopath)} gave it)") from None
        finally:
            packing_calls.leave(before)
        assert stream is not None
        return stream

    def _own_outputs(self, task: Task, parents: Sequence[Task | SharedParents]) -> None:
        """Note what a call makes. Raises OutputConflict."""
        shared = all(executor.working_dir is None for executor in self._launcher.allowed(task))
        self._owners.claim(task, task.more().directory, parents, shared_disk=shared)

    def _waits_for(self, task: Task, parents: Sequence[Task | SharedParents]) -> bool:
        return self._reactor.call(lambda: waits_for(task, parents), True)

    def _report_submitted(self, task: Task, futures: Sequence[Future[Any]]) -> None:
        depends = self._edges.named(futures) if futures else ()
        self._emitter.submitted(task, depends, self._launcher.labels(task), current_join.get())

    # -- for futures

    def status_of(self, task: Task) -> str:
        """Return the name of a task's state, with all reports taken into account."""
        self._reactor.pump()
        return task.state.name

    def cancel_task(self, task: Task, kill: bool) -> bool:
        """Cancel a task unless it has started; return whether it is cancelled or will be."""
        executor, key = task.executor, TryKey(task.key)
        # The report of a start may be on its way; a task that runs must not be said to be cancelled.
        if key and not task.started and executor is not None and executor.withdraw(key) is False:
            self._reactor.started(((key, time.time_ns(), Place(executor.label)),))
        return self._reactor.call(lambda: self._core.cancel(task, kill), False)

    def flush_for(self, task: Task) -> None:
        """Have the task's executor send what it has buffered; a hint, given before each wait for a result."""
        executor = task.executor
        if executor is not None:
            self._flush_one(executor)
        elif task.waiting:
            self._flush()

    def why_of(self, task: Task, timeout_s: float) -> Explanation:
        """Say why a task is not done yet."""
        return self._explainer.of(task, timeout_s)

    def _flush(self) -> None:
        for executor in [*self.executors.values()]:  # others may be added meanwhile
            self._flush_one(executor)

    def _flush_one(self, executor: Executor) -> None:
        if type(executor).flush is Executor.flush:  # it buffers nothing
            return
        if executor is self._launcher.last_own or is_own(executor):  # most: asked before each wait
            self._flush_now(executor)
        else:  # it may hang, and is a hint only
            packing_calls.soon(self._flush_now, executor, lambda _call, of: f"{hook_name('executor', of, 'flush')}")

    def _flush_now(self, executor: Executor) -> None:
        try:
            executor.flush()
        except BaseException as error:
            pass_signal(error)
            self._logger.error("executor %r: flush() raised %s", executor.label, one_line(error))

    # -- for users

    @property
    def config(self) -> Config:
        """The Config in use: a copy of the one that was loaded."""
        return self._parts.config

    @property
    def is_open(self) -> bool:
        """Whether calls are taken: not after ``cleanup``, nor in a forked child."""
        return self._parts.refusal is None

    @property
    def tasks(self) -> LiveTasks:
        """The unfinished tasks by their ids: a mapping that shows them as they are whenever it is looked at."""
        return LiveTasks(self._reactor)

    @property
    def task_count(self) -> int:
        """Number of calls taken so far."""
        return self.summary().submitted

    def summary(self) -> Summary:
        """Return how far the run is."""
        return summarize(self._reactor)

    def why(self, task: int | Future[Any], timeout_s: float = ANSWER_S) -> Explanation:
        """Say all that keeps a task from being done, as its future's ``why`` does.

        Args:
            task: Its id or its future.
            timeout_s: Seconds that its executor may take to answer.

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

    def transfers(self) -> list[Moving]:
        """Return the files that are being moved, those begun first first, each with how far it is.

        Files that move within tasks are among them once that has taken some seconds, where the executor brings word of
        it: threads and the executors with managers do.
        """
        found = [*self.staging.moves.all(), *self._node_files.all()]
        return sorted(found, key=lambda one: one.since_ns or 0)

    def why_waiting(self, timeout_s: float = ANSWER_S) -> Overview:
        """Say why the unfinished tasks are not done: those that are alike together, with why one of them is not.

        Looks at each unfinished task, at about 1 us each; executors are asked for ``timeout_s`` seconds in all.
        """
        return self._explainer.overview(timeout_s, self._held_calls())

    def _asked(self, tid: int | None) -> str:
        """Answer another process. Raises LookupError: there is no such unfinished task."""
        return str(self.why_waiting() if tid is None else self.why(tid))

    def _look(self, standstill: Standstill) -> None:
        standstill.look()
        for executor in [*self.executors.values()]:
            if type(executor) is ThreadPoolExecutor:
                executor.look()

    def _held_calls(self) -> list[Cause]:
        """Return causes that hold back calls of apps, which have no futures yet."""
        causes = []
        if self._gate is not None and self._gate.waiting:
            calls = count(self._gate.waiting, "call")
            text = f"{calls} of apps wait until fewer than max_pending={self._gate.limit} tasks are unfinished"
            causes.append(Cause(CauseKind.BACK_PRESSURE, text))
        if self.pump.congested:
            text = f"calls of apps wait for the sinks of events, which are {self.pump.backlog():,} events behind"
            causes.append(Cause(CauseKind.BACK_PRESSURE, text))
        return causes

    def add_executors(self, executors: Sequence[AnyExecutor]) -> None:
        """Start more executors: tasks that are placed from now on may run there, those that wait already, too.

        A call whose app names labels goes there only if it names one of theirs.

        Args:
            executors: As for a ``Config``; their labels must differ from those that there are.

        Raises:
            ConfigurationError: one is no executor, or its label is taken.
            ExecutorError: one could not be started; then none is added.
            KernelClosedError: the kernel was cleaned up.
        """
        if not executors:
            return
        given = checked_executors(executors)
        with self._adding:
            if self._parts.refusal is not None:
                raise KernelClosedError(f"no executor can be added: {self._parts.refusal}")
            added = assembly.wrapped_executors(given, self.executors)
            check_warning(added, self.config.warn_before_end_s)
            with lines_of(self.run_id):
                assembly.start_executors(
                    (
                        one,
                        assembly.executor_context(
                            self.config, label, self._info, self._reactor, self.pump, self._sampler
                        ),
                    )
                    for label, one in added.items()
                )
            self._sends = self._sends or not all(one.in_process for one in added.values())
            self._snapshots.stays = self._snapshots.stays or any(one.in_process for one in added.values())
            self.config.executors.extend(given)
            self._launcher.add(added, assembly.users_hooks(self.config, {**self.executors, **added}))
            self._only = self._launcher.only
            self._logger.info("Executors were added: %s", ", ".join(added))
        if not self.is_open:  # it was cleaned up meanwhile, perhaps without these
            assembly.shut_down(added.values())
            return
        # What was seen of these functions is enough for threads only: they may go elsewhere now.
        for task in self._unfinished():
            if self._sends and not task.key:
                self._take_snapshot(task)

    def wait_for_current_tasks(self) -> None:
        """Wait until all tasks submitted so far have ended, well or not, and callbacks of theirs that take no 5 s."""
        self._flush()
        for task in self._unfinished():
            # Not by result(): that would count as a look at the failure.
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
        return LoadedCheckpoints({} if self.memoizer is None else self.memoizer.load(checkpoints))

    def cleanup(self, timeout_s: float = 30.0) -> None:
        """End the run: cancel what is unfinished, write the checkpoint, shut down managed executors.

        Idempotent, and safe to call from several threads; returns within about ``timeout_s`` seconds and logs what it
        had to force. Afterwards every future of this kernel is done.

        Raises:
            CleanupIncomplete: something that belongs to the end was given up, once the rest is done: a file system, or
                whatever else it waits for, does not answer.
            UnseenFailures: with ``Config(unseen_failures="raise")``, once all is cleaned up, that tasks failed and
                nobody looked.
        """
        self._closing.report_unfinished("by cleanup()")
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
            self._closing.report_unfinished("at the end of the with block")
            self._closing.cleanup(shutdown.EXIT_S)
        else:
            self._closing.cleanup(shutdown.EXIT_S, raises=False)  # what is being raised comes first

    def __repr__(self) -> str:
        state = "open" if self.is_open else "closed"
        return f"<DataFlowKernel {state} run_dir={str(self.run_dir)!r}>"

    def _repr_html_(self) -> str:
        state = "goes on" if self.is_open else "has ended"
        rows = [("executors", ", ".join(self.executors)), ("tasks", str(self.summary()))]
        return html_table(f"Run {self.run_dir} {state}", rows)

    # -- called by the reactor

    def _on_moved(self, transfer: Transfer, digest: str, error: BaseException | None) -> None:
        """Note that a file was moved on the submit side, or could not be."""
        if transfer.versioned and isinstance(digest, Brought):
            task = self._core.live.get(transfer.task_id)
            if task is not None and task.details is not None and task.details.inputs is not None:
                # The version that was read, as the transfer reports it: a look at the server may see a newer one.
                task.details.inputs.read[transfer.file.url] = digest.version
        self._emitter.moved(transfer, digest, error)

    def _on_ended(self, tasks: Sequence[Task]) -> None:
        # Asked here, and once a batch: most runs have none of these, and pay nothing.
        if self._edges.junction is not None:
            self._edges.forget()
        if self._gate is not None:
            self._gate.ended()
        emitter, unseen = self._emitter, self._parts.unseen
        every = emitter.tasks or emitter.files or self._logger.isEnabledFor(logging.DEBUG)
        for task in tasks:
            error = task.error
            if error is not None:
                emitter.ended(task)
                self._parts.failures.add(task)
                if unseen is not None:
                    unseen.describe(task)
                # Its outputs are as before the task once it has failed; half of a file must not pass for an output.
                if task.details is not None and task.details.replaced and task.tries:
                    self.staging.put_back(task.tid, task.details.replaced, task.tries)
                if task.state is FAILED and task.details is not None and self._note_failed is not None:
                    key = task.details.memo_key
                    if key is not None:
                        self._note_failed(key, task.tid, one_line(root_cause(error)))
            elif every:
                emitter.ended(task)
        if self._owners.places:
            self._owners.ended(tasks)
        places = self.staging.places
        if places.tasks:
            for task in tasks:
                places.ended(task.tid, task.value)

    def _unfinished(self) -> list[Task]:
        nobody: list[Task] = []
        return self._reactor.call(lambda: list(self._core.live.values()), nobody)


def _make_core(config: Config, epoch: int) -> GraphCore:
    budgets = Budgets(config.retries, config.infrastructure_retries, config.max_worker_kills)
    return GraphCore(budgets, epoch=epoch, lazy_errors=config.lazy_errors, asks_price=config.retry_handler is not None)


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
