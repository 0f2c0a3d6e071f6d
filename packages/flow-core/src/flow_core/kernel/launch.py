"""From a task whose parents are done to a try in an executor, and from its result to the task's end."""

from __future__ import annotations

import logging
import math
import os
import random
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING, Any

from flow_core.apps.definition import AppKind
from flow_core.errors import ConfigurationError, ExecutorError, FlowError, HookError
from flow_core.futures.callbacks import hook_calls
from flow_core.graph.core import Core
from flow_core.graph.effects import Effect, Effects
from flow_core.graph.states import State
from flow_core.guard import is_a, one_line, pass_signal, shown
from flow_core.hooks import Calling, Noted, hook_name, is_own
from flow_core.interfaces.call import Call
from flow_core.interfaces.memoizer import MemoEntry, MemoKey
from flow_core.kernel.arguments import Arguments, are_plain, need_staging
from flow_core.kernel.directory import directory_of
from flow_core.kernel.join import JoinBody, returned_futures, unwrapped
from flow_core.remote.tracebacks import fold

if TYPE_CHECKING:
    from flow_core.config import ExecutorChooser, RetryHandler
    from flow_core.graph.task import Task
    from flow_core.interfaces.executor import Executor
    from flow_core.interfaces.memoizer import Memoizer
    from flow_core.kernel.edges import Edges
    from flow_core.kernel.reactor import Reactor
    from flow_core.kernel.telling import Teller
    from flow_core.staging.manager import StagingManager


_ASKING = (Effect.PREPARE, Effect.LOOK_UP, Effect.PLACE, Effect.UNWRAP)
"""The effects in which hooks of a Config are called, but for the retry handler."""


class Launcher:
    """Carries out what the graph asks for. One method an effect; any thread; nothing here waits.

    Attributes:
        travels: Whether tasks of such labels may go to another process; what is not there ``may_travel`` finds.
    """

    def __init__(
        self,
        reactor: Reactor,
        edges: Edges,
        arguments: Arguments,
        staging: StagingManager,
        memoizer: Memoizer | None,
        executors: dict[str, Executor],
        bodies: Executor,
        chooser: ExecutorChooser | None,
        retry_handler: RetryHandler | None,
        teller: Teller,
        logger: logging.Logger,
        hooks: Sequence[str] = (),
    ) -> None:
        """Take the parts of a kernel, and the names of those hooks that are not Flow's own.

        Where there are such, what calls them is done by the thread of hooks: they may block.
        """
        self._reactor = reactor
        self._core: Core = reactor.core
        self._edges = edges
        self._arguments = arguments
        self._staging = staging
        self._memoizer = memoizer
        self._executors = executors
        self._bodies = bodies
        self._chooser = chooser
        self._retry_handler = retry_handler
        self._teller = teller
        self._logger = logger
        self._allowed: dict[tuple[str, ...] | None, tuple[Executor, ...]] = {}
        self._labels: dict[tuple[str, ...] | None, tuple[str, ...]] = {}
        self.travels: dict[tuple[str, ...] | None, bool] = {}
        self._ways: dict[Effect, Callable[[Task, Any], None]] = {
            Effect.PREPARE: self._prepare,
            Effect.LOOK_UP: self._look_up,
            Effect.SHARE: self._share,
            Effect.PLACE: self._place,
            Effect.LAUNCH: self._launch,
            Effect.PRICE: self._price,
            Effect.JOIN: self._join,
            Effect.UNWRAP: self._unwrap,
            Effect.PUBLISH: self._publish,
            Effect.CANCEL: self._cancel,
            Effect.CHANGED: self._changed,
            Effect.TRY_STARTED: lambda task, start: teller.started(task, *start),
            Effect.TRY_ENDED: teller.try_ended,
        }
        self._hooks = " or ".join(hooks)
        for effect in _ASKING if hooks else ():
            self._ways[effect] = partial(self._apart, self._ways[effect])

    def perform(self, effects: Effects) -> None:
        """Carry out effects in their order. What goes wrong with one task becomes that task's failure.

        If an interrupt comes, the list is left with what was not carried out.
        """
        done = 0
        results: list[tuple[Task, object]] = []
        try:
            for effect, task, given in effects:
                try:
                    if effect is Effect.PUBLISH and task.more().stage_out is None:
                        results.append((task, given))
                    else:
                        self._ways[effect](task, given)
                except BaseException as error:
                    self._reactor.post(self._core.failed, (task, _not_the_apps(task, error)))
                done += 1
            if results:
                self._keep(results)
        except BaseException:
            effects[:done] = [(Effect.PUBLISH, task, value) for task, value in results]
            raise

    def _apart(self, way: Callable[[Task, Any], None], task: Task, given: object) -> None:
        """Carry out an effect on the thread of hooks."""

        def attempt(given: object) -> None:
            try:
                way(task, given)
            except BaseException as error:
                self._reactor.post(self._core.failed, (task, _not_the_apps(task, error)))

        hook_calls.soon(attempt, given, lambda _call, _given: f"{self._hooks}, called for {task},")

    # -- before the first try

    def allowed(self, task: Task) -> tuple[Executor, ...]:
        """Return the executors that may run a task.

        Raises:
            ConfigurationError: its app names one that does not exist.
        """
        if task.app.kind is AppKind.JOIN:
            return (self._bodies,)
        labels = task.options.executors or task.app.executors
        executors = self._allowed.get(labels)
        if executors is None:
            executors = self._allowed[labels] = self._find(labels, task.app.name)
        return executors

    def labels(self, task: Task) -> tuple[str, ...]:
        """Return the labels of the executors that may run a task. Raises as ``allowed``."""
        if task.app.kind is AppKind.JOIN:
            return (self._bodies.label,)
        asked = task.options.executors or task.app.executors
        labels = self._labels.get(asked)
        if labels is None:
            labels = self._labels[asked] = tuple(executor.label for executor in self.allowed(task))
        return labels

    def may_travel(self, task: Task) -> bool:
        """Tell whether a task of such labels may go to another process, and keep that. Raises as ``allowed``."""
        asked = task.options.executors or task.app.executors
        self.travels[asked] = travels = not all(executor.in_process for executor in self._find(asked, task.app.name))
        return travels

    def _find(self, labels: tuple[str, ...] | None, app: str) -> tuple[Executor, ...]:
        if labels is None or "all" in labels:
            return tuple(self._executors.values())
        for label in labels:
            if label not in self._executors:
                known = ", ".join(repr(name) for name in self._executors)
                raise ConfigurationError(
                    f"app {app!r} asks for executor {label!r}, which the loaded Config has not: it has {known}"
                )
        return tuple(self._executors[label] for label in labels)

    def caches(self, task: Task) -> bool:
        """Tell whether a task's result is remembered."""
        return task.app.cache and self._memoizer is not None

    def _prepare(self, task: Task, _given: object) -> None:
        plain = bool(task.args or task.kwargs) and self._arguments.resolve(task)
        if self.caches(task) and self._memoizer is not None:
            task.more().memo_key = self._key(task, self._memoizer)
            self._reactor.post(self._core.keyed, task)
        else:
            self._place(task, plain)

    def _key(self, task: Task, memoizer: Memoizer, call: Call | None = None) -> MemoKey:
        with Calling(task, "memoizer", memoizer, "key") as calling:
            key = memoizer.key(task.app.identity, task if call is None else call)
            if not is_a(key, MemoKey) or type(key.digest) is not bytes:
                calling.gave(key, "a MemoKey with a digest of bytes")
            return key

    def _look_up(self, task: Task, _given: object) -> None:
        memoizer, key = self._memoizer, task.more().memo_key
        assert memoizer is not None
        assert key is not None
        with Calling(task, "memoizer", memoizer, "lookup"):
            stored = memoizer.lookup(key)
        if stored is not None and self._outputs_are_there(task):
            try:
                with Calling(task, "remembered result", stored, "result"):
                    value = stored.result()
            except BaseException as error:
                pass_signal(error)
                told = "A remembered result of %s cannot be used, so it is run again: %s"
                self._logger.warning(told, task, one_line(error))
            else:
                self._teller.once("Remembered results are used and calls not run again, such as that of %s", task)
                self._reactor.post(self._core.remembered, (task, value))
                return
        self._place(task, None)

    def _share(self, task: Task, value: object) -> None:
        """Give a follower a copy of its leader's result, or the result itself where the memoizer has no copy of it."""
        memoizer, key = self._memoizer, task.more().memo_key
        assert memoizer is not None
        assert key is not None
        try:
            stored = memoizer.lookup(key)
            value = value if stored is None else stored.result()
        except Exception as error:
            self._logger.warning("%s shares the result object of an identical call, which has no copy: %s", task, error)
        self._reactor.post(self._core.remembered, (task, value))

    def _outputs_are_there(self, task: Task) -> bool:
        """Tell whether the local files that a remembered call made are still where it made them; others are trusted."""
        for file in task.options.outputs:
            path = os.path.join(directory_of(task), file.filepath) if file.scheme == "file" else ""
            if path and not os.path.exists(path):
                self._teller.once("Calls are run again whose outputs are gone, such as %s of %s", file.filepath, task)
                return False
        return True

    # -- a try

    def _place(self, task: Task, plain: object) -> None:
        if task.state >= State.exec_done:
            return
        try:
            self.choose(task)
            waits = self._plan(task, plain is True)
        except BaseException as error:
            self._reactor.post(self._core.unplaced, (task, _not_the_apps(task, error)))
            return
        if not waits:
            self._reactor.post(self._core.placed, task)

    def choose(self, task: Task) -> None:
        """Choose the executor of a task's next try.

        Raises:
            ConfigurationError: its app names an executor that does not exist, or the chooser chose none of those given.
            ExecutorError: all that may run it have refused it.
        """
        executors = self.allowed(task)
        if task.rare is not None and task.rare.refused_by:
            executors = self._willing(task, executors)
        if len(executors) == 1:
            task.executor = executors[0]
        elif self._chooser is None:
            task.executor = executors[int(random.random() * len(executors))]
        else:
            task.executor = self._chosen(task, executors)

    def _willing(self, task: Task, executors: tuple[Executor, ...]) -> tuple[Executor, ...]:
        rare = task.more()
        willing = tuple(executor for executor in executors if executor.label not in rare.refused_by)
        if not willing:
            error = rare.refused
            if error is None:
                error = ExecutorError(f"{task}: no executor can run it")
            raise error.with_traceback(None)  # one error may be that of thousands of tasks
        return willing

    def _chosen(self, task: Task, executors: tuple[Executor, ...]) -> Executor:
        assert self._chooser is not None
        with Calling(task, "executor_chooser", self._chooser):
            label: object = self._chooser([executor.label for executor in executors], task)
        for executor in executors if is_a(label, str) else ():
            if executor.label == label:
                return executor
        raise ConfigurationError(
            f"{task}: {hook_name('executor_chooser', self._chooser)} returned {shown(label)}, which is none of "
            "those it was given"
        )

    def _plan(self, task: Task, plain: bool) -> bool:
        """Plan the staging of a try, of plain arguments or not; tell whether it must be waited for."""
        rare = task.rare
        if rare is not None and rare.original is not None:
            task.args, task.kwargs = rare.original
        options, kind = task.options, task.app.kind
        moves = options.outputs or options.stdout is not None or options.stderr is not None
        simple = kind is AppKind.PYTHON and not moves
        if simple and (plain or not need_staging(task.args, task.kwargs, task.app.takes)):
            return False
        assert task.executor is not None
        directory = partial(directory_of, task)
        plan = self._staging.plan(task.tid, task.executor, task.app, task.args, task.kwargs, options, directory)
        if plan.args is not task.args or plan.kwargs is not task.kwargs:
            task.more().original = (task.args, task.kwargs)
            task.args, task.kwargs = plan.args, plan.kwargs
        task.steps = (JoinBody(task.tid), *plan.steps) if kind is AppKind.JOIN else plan.steps
        if plan.stage_out is not None or (rare is not None and rare.stage_out is not None):
            task.more().stage_out = plan.stage_out
        if plan.on_node and self._teller.files:
            task.more().on_node = plan.on_node
        if plan.stage_in is None:
            return False
        self._reactor.post(self._core.staging, task)
        plan.stage_in().add_done_callback(lambda moved: self._reactor.post(self._core.staged, (task, _error_of(moved))))
        return True

    def _launch(self, task: Task, key: Any) -> None:
        if task.key != key or task.executor is None:  # cancelled meanwhile
            return
        if self._teller.tries:
            self._teller.launched(task, key)
        try:
            if task.rare is None or task.rare.memo_key is None:
                task.executor.submit(key, task)
            else:
                self._submit_keyed(task, key)
        except BaseException as error:
            pass_signal(error)
            label = task.executor.label
            self._logger.info("%s was not taken by executor %r: %s", task, label, one_line(error))
            if not is_a(error, FlowError):
                failure = error
                error = ExecutorError(
                    f"{task} was not taken by executor {label!r}: submit() raised {one_line(failure)}"
                )
                error.__cause__ = failure
            fold(error)
            self._reactor.post(self._core.not_launched, (task, key, error))

    def _submit_keyed(self, task: Task, key: Any) -> None:
        """Submit a try of a cached call; what was sent, or is to be used here, must be what its key stands for."""
        executor, rare = task.executor, task.more()
        assert executor is not None
        if executor.in_process:
            rare.changed = self._differ(task)
            executor.submit(key, task)
        else:
            rare.changed = None  # if its result comes before the next line is done, that looks itself
            executor.submit(key, task)
            rare.changed = self._differ(task)

    def _differ(self, task: Task) -> tuple[str, ...]:
        """Return the names of arguments that are not as they were when the key was made."""
        memoizer, before = self._memoizer, task.more().memo_key
        arguments = task.more().original or (task.args, task.kwargs)
        if memoizer is None or before is None or are_plain(*arguments):
            return ()
        try:
            now = self._key(task, memoizer, Call(task.func, *arguments, snapshot=task.snapshot))
        except BaseException as error:  # the try is out: this must not count as a refusal of its executor
            pass_signal(error)
            return (f"its key, which could not be made again: {one_line(error)}",)
        if now.digest == before.digest:
            return ()
        parts = dict(before.parts)
        return tuple(name for name, part in now.parts if parts.get(name) != part) or ("its arguments",)

    def _cancel(self, task: Task, given: Any) -> None:
        executor, key, kill = given
        try:
            executor.cancel([key], kill=kill)
        except BaseException as error:
            pass_signal(error)
            self._logger.exception("Executor %r could not cancel a try of %s", executor.label, task)

    def _price(self, task: Task, error: BaseException) -> None:
        """Ask the retry handler, where it may take its time: it holds up nothing but tries after failures."""
        hook_calls.soon(partial(self._priced, task), error, lambda _call, _given: self._pricing(task))

    def _priced(self, task: Task, error: BaseException) -> None:
        handler = self._retry_handler
        assert handler is not None
        try:
            with Noted(task, "retry_handler", handler):
                answer: object = handler(error, task)
            cost = _cost(answer)
            problem = f"returned {shown(answer)}, which is no cost of 0 or more"
        except BaseException as failure:
            cost, problem = None, f"raised {one_line(failure)}"
            self._logger.error("%s failed", self._pricing(task), exc_info=failure)
        if cost is None:
            self._logger.error("%s %s, so it fails", self._pricing(task), problem)
            hook = hook_name("retry_handler", handler)
            failed = HookError(
                f"{task} failed with {one_line(error)} and was not tried again, since {hook} {problem}", hook
            )
            failed.__cause__ = error
            cost, error = math.inf, failed
        self._reactor.post(self._core.priced, (task, cost, error))

    def _pricing(self, task: Task) -> str:
        return f"{hook_name('retry_handler', self._retry_handler)}, asked about a failure of {task},"

    # -- after a try

    def _join(self, task: Task, value: object) -> None:
        futures = returned_futures(str(task), value)
        task.more().joined = value
        self._teller.joined(task, self._edges.named(futures))
        parents, foreign, failures = self._edges.split(futures)
        whole = self._edges.whole(foreign)
        if whole:
            self._reactor.post(self._core.joining_parts, (task, whole))
        self._reactor.post(self._core.joining, (task, parents, len(foreign), failures))
        self._edges.watch(task, foreign)

    def _unwrap(self, task: Task, _given: object) -> None:
        rare = task.more()
        value, rare.joined = unwrapped(rare.joined), None
        self._reactor.post(self._core.joined, (task, value))

    def _publish(self, task: Task, value: object) -> None:
        stage_out: Any = task.more().stage_out
        self._reactor.post(self._core.publishing, task)
        stage_out().add_done_callback(lambda moved: self._moved_out(task, value, _error_of(moved)))

    def _moved_out(self, task: Task, value: object, error: BaseException | None) -> None:
        if error is None:
            self._keep([(task, value)])
        else:
            self._reactor.post(self._core.published, (task, value, error))

    def _keep(self, results: Sequence[tuple[Task, object]]) -> None:
        if self._memoizer is None or is_own(self._memoizer):
            self._store(results)
        else:
            who = hook_name("memoizer", self._memoizer, "store")
            hook_calls.soon(self._store, results, lambda _call, _given: f"{who}, called for {results[0][0]},")

    def _store(self, results: Sequence[tuple[Task, object]]) -> None:
        """Remember results, all of a batch in one write, and let their tasks end."""
        entries = [
            MemoEntry(rare.memo_key, task.tid, value, rare.started_ns, rare.ended_ns)
            for task, value in results
            if (rare := task.more()).memo_key is not None and self._is_what_its_key_says(task)
        ]
        if entries and self._memoizer is not None:
            try:
                with Noted([task for task, _ in results], "memoizer", self._memoizer, "store"):
                    self._memoizer.store(entries)
            except BaseException as error:
                pass_signal(error)
                hook = hook_name("memoizer", self._memoizer, "store")
                told = "The results of %d tasks, such as task %d, could not be remembered: %s raised %s"
                self._logger.exception(told, len(entries), entries[0].task_id, hook, one_line(error))
        for task, value in results:
            self._reactor.post(self._core.published, (task, value, None))

    def _is_what_its_key_says(self, task: Task) -> bool:
        """Tell whether a result may be remembered: not if what it was made of changed after its key was made."""
        changed = task.more().changed
        in_process = task.executor is None or task.executor.in_process
        if changed is None or (in_process and not changed):
            changed = self._differ(task)
        if in_process and not changed and task.snapshot is not None:
            changed = task.snapshot.changes()
        if not changed:
            return True
        task.more().changed = changed
        self._teller.warn_once(
            task.app,
            "The result of %s is not remembered, since what it was made of changed between the call and its end: %s. "
            "Tasks in threads use the script's own objects: do not change what a cached app names or is given while "
            "it runs, or run it in another process. Further such results of this app are not mentioned",
            task,
            ", ".join(changed),
        )
        return False

    def _changed(self, task: Task, error: object) -> None:
        self._teller.changed(task, task.state, error)


def _not_the_apps(task: Task, error: BaseException) -> BaseException:
    """Return an error for what was raised while a task was made ready or ended: it must not look like the app's own.

    Raises:
        BaseException: the one given, if it is that of a signal.
    """
    pass_signal(error)
    fold(error)
    if is_a(error, FlowError) or (task.rare is not None and error is task.rare.refused):
        return error
    failed = HookError(f"{task} failed outside its app, on what was given to it or on its result: {one_line(error)}")
    failed.__cause__ = error
    return failed


def _cost(answer: object) -> float | None:
    """Return what a retry handler gave as a cost, None if it is none: text, a negative number, NaN."""
    if isinstance(answer, (str, bytes)):
        return None
    cost = float(answer)  # type: ignore[arg-type]  # any type of number; what is none raises
    return cost if cost >= 0 else None


def _error_of(moved: Future[Any]) -> BaseException | None:
    return RuntimeError("the transfer was cancelled") if moved.cancelled() else moved.exception()
