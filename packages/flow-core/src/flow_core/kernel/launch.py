"""Effect handlers: from a task whose parents are done to a try in an executor, and from its result to its end."""

from __future__ import annotations

import logging
import math
import os
import random
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from time import time_ns
from typing import TYPE_CHECKING, Any

from flow_core.apps.definition import JOIN, PYTHON
from flow_core.errors import ConfigurationError, ExecutorError, FlowError, HookError, MissingInputs, TaskRefused
from flow_core.futures.callbacks import Limit, hook_calls
from flow_core.futures.lean import when_done
from flow_core.graph.effects import LAUNCH, STAGE_OUT, Effect, EffectHandlers
from flow_core.graph.graph_core import GraphCore
from flow_core.graph.growth import grown, growth_text
from flow_core.graph.plain_data import are_harmless
from flow_core.graph.states import EXEC_DONE
from flow_core.graph.task import PLAIN
from flow_core.guard import attribute, is_a, one_line, pass_signal, shown, text_of, to_log
from flow_core.hooks import Calling, Handling, Noted, hook_name, is_own
from flow_core.interfaces.call import DEFAULT_SPEC
from flow_core.interfaces.task_fields import asked_for
from flow_core.kernel.arguments import Arguments, need_staging
from flow_core.kernel.directory import directory_of
from flow_core.kernel.honouring import refuse_warning_of_ranks, willing
from flow_core.kernel.isolation import Isolation, runs_code_when_searched
from flow_core.kernel.join import JoinBody, returned_futures, unwrapped
from flow_core.kernel.memoization import MemoizedCalls
from flow_core.kernel.output_restoring import OutputRestoring
from flow_core.kernel.task_view import TaskView
from flow_core.remote.reductions import Given, Recording
from flow_core.remote.tracebacks import fold

if TYPE_CHECKING:
    from flow_core.config import ExecutorChooser, RetryHandler
    from flow_core.graph.effects import Effects
    from flow_core.graph.task import Task
    from flow_core.interfaces.call import TaskSpec
    from flow_core.interfaces.executor import Executor
    from flow_core.interfaces.memoizer import Memoizer
    from flow_core.kernel.call_dependencies import CallDependencies
    from flow_core.kernel.reactor import Reactor
    from flow_core.kernel.task_events import TaskEventEmitter
    from flow_core.staging.manager import StagingManager


_ASKING = (Effect.PREPARE, Effect.LOOK_UP, Effect.SHARE, Effect.PLACE, Effect.UNWRAP)
"""The effects in which hooks of a Config are called, but for the retry handler."""
_MOST_ABLE = 1024  # classes of tasks whose executors are known; a bound for scripts that make one for each call


class EffectHandler:
    """Carries out what the graph asks for. One method an effect; any thread; nothing here waits.

    Attributes:
        travels: Whether tasks of such labels may go to another process; what is not there ``may_travel`` finds.
    """

    def __init__(
        self,
        reactor: Reactor,
        edges: CallDependencies,
        arguments: Arguments,
        staging: StagingManager,
        memoizer: Memoizer | None,
        executors: dict[str, Executor],
        bodies: Executor,
        chooser: ExecutorChooser | None,
        retry_handler: RetryHandler | None,
        emitter: TaskEventEmitter,
        logger: logging.Logger,
        hooks: Sequence[str] = (),
        hook_timeout_s: float | None = None,
    ) -> None:
        """Take the parts of a kernel, and the names of those hooks that are not Flow's own.

        Where there are such, what calls them is done by the thread of hooks: they may block, as long as
        ``hook_timeout_s``. Then their task fails.
        """
        self._reactor = reactor
        self._core: GraphCore = reactor.core
        self._edges = edges
        self._arguments = arguments
        self._staging = staging
        self._memoizer = memoizer
        self._executors = executors
        self._bodies = bodies
        self._chooser = chooser
        self._retry_handler = retry_handler
        self._emitter = emitter
        self._logger = logger
        self._allowed: dict[tuple[str, ...] | None, tuple[Executor, ...]] = {}
        self._labels: dict[tuple[str, ...] | None, tuple[str, ...]] = {}
        self._able: dict[tuple[object, ...], tuple[tuple[Executor, ...], TaskSpec]] = {}
        self.only: dict[tuple[str, ...] | None, Executor] = {}
        """The executor of calls of such labels, where there is one alone; as far as they were asked for."""
        self.travels: dict[tuple[str, ...] | None, bool] = {}
        self._isolation = Isolation()
        self._own: dict[int, bool] = {}  # by id of an executor
        self.last_own: Executor | None = None
        """The executor of Flow's own that a task was last for: to know that one is own costs no look-up then."""
        self.during_call = self._isolation.during_call
        self._memory = MemoizedCalls(
            reactor,
            memoizer,
            staging,
            emitter,
            logger,
            self._isolation,
            self.allowed,
            lambda task, plain: self._handlers[Effect.PLACE](task, plain),
            self._fail,
            self._limit,
            hook_timeout_s,
        )
        self._handlers = EffectHandlers(
            prepare=self._prepare,
            look_up=self._memory.look_up,
            share=self._memory.share,
            place=self._place,
            launch=self._launch,
            retry_cost=self._price,
            join=self._join,
            unwrap=self._unwrap,
            stage_out=self._publish,
            cancel=self._cancel,
            unstage=lambda task, _given: staging.moves.cancel(task.tid),
            changed=self._changed,
            try_started=lambda task, start: emitter.started(task, *start),
            try_ended=emitter.try_ended,
        ).by_effect()
        self._hooks = ""
        self._hook_timeout_s = hook_timeout_s
        self._set_hooks(hooks)

    def _set_hooks(self, hooks: Sequence[str]) -> None:
        before, self._hooks = self._hooks, " or ".join(hooks)
        # Bound here once, so that runs without hooks of the user's pay for no test at each effect.
        for effect in _ASKING if hooks and not before else ():
            self._handlers[effect] = partial(self._by_hooks, self._handlers[effect])

    def add(self, executors: Mapping[str, Executor], hooks: Sequence[str]) -> None:
        """Have more executors run tasks; ``hooks`` are the names of all that are the user's then. Any thread."""
        self._set_hooks(hooks)
        self._executors.update(executors)
        # Other dicts: a thread that has looked at the executors of before keeps what it found in those that it had.
        self._allowed, self._labels, self._able, self.only, self.travels = {}, {}, {}, {}, {}

    def perform(self, effects: Effects) -> None:
        """Carry out effects in their order. What goes wrong with one task becomes that task's failure.

        If an interrupt comes, the list is left with what was not carried out.
        """
        done = 0
        results: list[tuple[Task, object]] = []
        try:
            for effect, task, given in effects:
                try:
                    # The two effects that each task has, without the look-up in the table.
                    if effect is LAUNCH:
                        self._launch(task, given)
                    # Results of one report are stored in one write, before any of their futures is done.
                    elif effect is STAGE_OUT and task.more().stage_out is None:
                        results.append((task, given))
                    else:
                        self._handlers[effect](task, given)
                except BaseException as error:
                    self._fail(task, error)
                done += 1
            if results:
                self._memory.keep(results)
        except BaseException:
            # The reactor puts this list back: results gathered here and not kept would be lost with the interrupt.
            effects[:done] = [(STAGE_OUT, task, value) for task, value in results]
            raise

    def _by_hooks(self, way: Callable[[Task, Any], None], task: Task, given: object) -> None:
        """Carry out an effect on the thread of hooks."""

        def attempt(given: object) -> None:
            try:
                way(task, given)
            except BaseException as error:
                self._fail(task, error)

        hook_calls.soon(attempt, given, lambda _call, _given: f"{self._hooks}, called for {task},", self._limit(task))

    def _limit(self, task: Task) -> Limit | None:
        """Return how long a hook may keep a task, and what becomes of the task then."""
        if self._hook_timeout_s is None:
            return None
        return Limit(self._hook_timeout_s, lambda hook, told: self._fail(task, HookError(f"{task}: {told}", hook)))

    def _fail(self, task: Task, error: BaseException) -> None:
        self._reactor.post(self._core.failed, (task, _not_the_apps(task, error)))

    # -- before the first try

    def allowed(self, task: Task) -> tuple[Executor, ...]:
        """Return the executors that may run a task.

        Raises:
            ConfigurationError: its app names one that does not exist.
            TaskRefused: it asks for what these do not honour.
        """
        spec = task.options.spec
        if spec is not DEFAULT_SPEC:
            return self._honouring(task, spec)
        if task.app.kind is JOIN:
            return (self._bodies,)
        return self._of_labels(task)

    def _of_labels(self, task: Task) -> tuple[Executor, ...]:
        labels = task.options.executors or task.app.executors
        executors = self._allowed.get(labels)
        if executors is None:
            # Into these very dicts, here and below: see ``add``.
            allowed, only = self._allowed, self.only
            executors = allowed[labels] = self._find(labels, task.app.name)
            # Kept for plain calls (``DataFlowKernel.submit_call``), which then choose by one look-up.
            if len(executors) == 1:
                only[labels] = executors[0]
        return executors

    def _honouring(self, task: Task, spec: TaskSpec) -> tuple[Executor, ...]:
        """Return those of a task's executors that honour what it asks for. Raises as ``allowed``."""
        app = task.app
        if app.gather is not None and spec.warn_before_end_s is not None:
            refuse_warning_of_ranks(app.name, spec.warn_before_end_s)
        labels = task.options.executors or app.executors
        # By the spec's identity: specs are shared, and to hash one takes as long as all else here. The entry keeps it.
        joins = app.kind is JOIN
        # Two truths and not the kind: the hash of a member of an Enum is a call of Python code.
        key = (labels, id(spec), joins, app.kind is PYTHON)
        found = self._able.get(key)
        if found is None:
            known = self._able
            executors = (self._bodies,) if joins else self._of_labels(task)
            named = not joins and labels is not None and "all" not in labels
            every = tuple(self._executors.values())
            able = willing(app.name, app.kind, asked_for(spec), executors, named, every)
            if len(known) >= _MOST_ABLE:
                known.clear()
            found = known[key] = (able, spec)
        return found[0]

    def labels(self, task: Task) -> tuple[str, ...]:
        """Return the labels of the executors that may run a task. Raises as ``allowed``."""
        if task.options.spec is not DEFAULT_SPEC:
            return tuple(executor.label for executor in self.allowed(task))
        if task.app.kind is JOIN:
            return (self._bodies.label,)
        asked = task.options.executors or task.app.executors
        labels = self._labels.get(asked)
        if labels is None:
            known = self._labels
            labels = known[asked] = tuple(executor.label for executor in self.allowed(task))
        return labels

    def may_travel(self, task: Task) -> bool:
        """Return whether a task of such labels may go to another process, and keep that. Raises as ``allowed``."""
        asked = task.options.executors or task.app.executors
        known = self.travels
        known[asked] = travels = not all(executor.in_process for executor in self._find(asked, task.app.name))
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
        """Return whether a task's result is remembered."""
        return task.app.cache and self._memoizer is not None

    def _prepare(self, task: Task, _given: object) -> None:
        if _may_run_code(task):
            self._search(task, "the search for results in", "arguments", partial(self._resolve, task))
        else:
            self._resolve(task)

    def _search(self, task: Task, deed: str, thing: str, work: Callable[[], None]) -> None:
        """Search values of a task that may run code of the user's, which must hold up no thread that others need."""
        self._isolation.do(task, Handling(task, deed, thing), work, partial(self._fail, task), self._limit(task))

    def _resolve(self, task: Task) -> None:
        plain = bool(task.args or task.kwargs) and self._arguments.resolve(task)
        if not self.caches(task):
            self._place(task, plain)
        # A key pickles the arguments. Those of plain types cannot hang; others hold up no other task there.
        elif are_harmless(task.args, task.kwargs):
            self._memory.make_key(task)
        else:
            key = Handling(task, "the key for", "arguments")
            limit = None if is_own(self._memoizer) else self._limit(task)
            self._isolation.do(task, key, partial(self._memory.make_key, task), partial(self._fail, task), limit)

    # -- a try

    def _place(self, task: Task, plain: object) -> None:
        if plain is not True and _may_run_code(task):
            self._search(task, "the search for files in", "arguments", partial(self._place_now, task, plain))
        else:
            self._place_now(task, plain)

    def _place_now(self, task: Task, plain: object) -> None:
        # It may have been cancelled since the effect was made; its files are not to be moved then.
        if task.state >= EXEC_DONE:
            return
        try:
            self.choose(task)
            if task.spent is not None:
                self._avoid(task)
                if task.spent.ran_out:
                    self._grow(task)
            waits = self._plan(task, plain is True)
        except BaseException as error:
            self._reactor.post(self._core.unplaced, (task, _not_the_apps(task, error)))
            return
        if not waits:
            self._reactor.post(self._core.placed, task)

    def _avoid(self, task: Task) -> None:
        """Have the next try of a task go to other nodes first than those on which it failed."""
        executor, spent = task.executor, task.spent
        if executor is None or spent is None:
            return
        nodes = spent.nodes if attribute(executor, "avoids_nodes", False) is True else None
        if task.spec.avoid != nodes:
            task.spec = replace(task.spec, avoid=nodes)

    def _grow(self, task: Task) -> None:
        """Have the next try of a task ask for more of what it ran out of, as far as its executor has it."""
        spent = task.spent
        if spent is None:
            return
        most = attribute(task.executor, "task_limits")
        bounds: dict[str, float] = most if is_a(most, dict) else {}
        before = task.spec
        task.spec = grown(before, task.options.spec, task.app.growth, spent.ran_out, bounds)
        if task.spec is not before:
            told = growth_text(task.options.spec, task.spec)
            self._logger.info("%s asks for more in try %d: %s", task, task.tries + 1, told)

    def asks_chooser(self, task: Task) -> bool:
        """Return whether a chooser of the user's own is asked where a task runs. Raises as ``allowed``."""
        return self._chooser is not None and not is_own(self._chooser) and len(self.allowed(task)) > 1

    def choose(self, task: Task) -> None:
        """Choose the executor of a task's next try.

        Raises:
            ConfigurationError: its app names an executor that does not exist, or the chooser chose none of those given.
            ExecutorError: all that may run it have refused it, or do not honour what it asks for.
        """
        executors = self.allowed(task)
        if task.details is not None and task.details.refused_by:
            executors = self._willing(task, executors)
        if len(executors) == 1:
            task.executor = executors[0]
        elif self._chooser is None:
            task.executor = executors[int(random.random() * len(executors))]
        else:
            task.executor = self._chosen(task, executors)

    def _willing(self, task: Task, executors: tuple[Executor, ...]) -> tuple[Executor, ...]:
        details = task.more()
        willing = tuple(executor for executor in executors if executor.label not in details.refused_by)
        if not willing:
            error = details.refused
            if error is None:
                error = ExecutorError(f"{task}: no executor can run it")
            elif type(error) is TaskRefused:  # of an executor, which knows tasks by their keys alone
                labels = ", ".join(f"executor {label!r}" for label in sorted(details.refused_by))
                error = TaskRefused(f"{task} was refused by {labels}: {text_of(error)}")
            raise error.with_traceback(None)  # one error may be that of thousands of tasks
        return willing

    def _chosen(self, task: Task, executors: tuple[Executor, ...]) -> Executor:
        chooser = self._chooser
        assert chooser is not None
        with Calling(task, "executor_chooser", chooser):
            label: object = chooser([executor.label for executor in executors], TaskView(task))
        # A subclass of str may compare in its own way.
        name = str.__str__(label) if issubclass(type(label), str) else None
        for executor in executors:
            if executor.label == name:
                return executor
        raise ConfigurationError(
            f"{task}: {hook_name('executor_chooser', self._chooser)} returned {shown(label)}, which is none of "
            "those it was given"
        )

    def _plan(self, task: Task, plain: bool) -> bool:
        """Plan the staging of a try, of plain arguments or not; return whether it must be waited for."""
        details = task.details
        if details is not None and details.original is not None:
            # Staging put local paths in the place of files: each try begins with the files again.
            task.args, task.kwargs = details.original
        options, kind = task.options, task.app.kind
        moves = options.outputs or options.stdout is not None or options.stderr is not None
        simple = kind is PYTHON and not moves and task.app.gather is None
        if simple and (plain or not need_staging(task.args, task.kwargs, task.app.takes)):
            return False
        assert task.executor is not None
        directory = partial(directory_of, task)
        plan = self._staging.plan(
            task.tid,
            task.executor,
            task.app,
            task.args,
            task.kwargs,
            options,
            directory,
            task.tries + 1,
            contested=details is not None and details.contested,
            versioned=details is not None and details.inputs is not None,
            stays=task.executor.in_process and all(executor.in_process for executor in self.allowed(task)),
        )
        if plan.args is not task.args or plan.kwargs is not task.kwargs:
            task.more().original = (task.args, task.kwargs)
            task.args, task.kwargs = plan.args, plan.kwargs
        task.steps = (JoinBody(task.tid), *plan.steps) if kind is JOIN else plan.steps
        if plan.stage_out is not None or (details is not None and details.stage_out is not None):
            task.more().stage_out = plan.stage_out
        if plan.replaced:
            task.more().replaced = plan.replaced
            if self._reactor.settling is None:
                self._reactor.settling = OutputRestoring(self._staging, self._core.tries.get, self._reactor.settled)
        if plan.on_node:
            task.more().on_node = plan.on_node
        if plan.stage_in is None:
            return False
        # Before the transfer begins, which may be done at once: ``staged`` counts only in the state ``staging``.
        self._reactor.post(self._core.staging, task)
        when_done(plan.stage_in(), lambda moved: self._reactor.post(self._core.staged, (task, _error_of(moved))))
        self._unstage_if_ended(task)
        return True

    def _unstage_if_ended(self, task: Task) -> None:
        """Stop moving files of a task that was cancelled just before they began to be moved."""
        if task.state.final:
            self._staging.moves.cancel(task.tid)

    def _launch(self, task: Task, key: Any) -> None:
        executor = task.executor
        if task.key != key or executor is None:  # cancelled meanwhile
            return
        if self._emitter.tries:
            self._emitter.launched(task, key)
        task.handed_ns = time_ns()
        if (
            task.details is None and task.holds == PLAIN and executor is self.last_own
        ):  # most: in as few steps as can be
            try:
                executor.submit(key, task)
            except BaseException as error:
                self._not_taken(executor, task, key, error)
            if task.key != key:
                self._cancel_try(task, executor, key, False)
            return
        own = self._is_own(executor)
        if own:
            self.last_own = executor
        foreign = not own or self._asks_memoizer(task)
        if not foreign and _is_taken_at_once(executor, task):
            self._submit(executor, task, key)
            return
        if own:
            noted: Noted = Handling(task, "the packing of", "arguments", f" for executor {executor.label!r}")
        else:
            noted = Noted(task, "executor", attribute(executor, "wrapped", executor), "submit")
        # The limit is for what the user gave as a hook or executor; the packing of arguments has none.
        limit = self._limit(task) if foreign else None
        self._isolation.do(task, noted, partial(self._hand_over, task, key), partial(self._fail, task), limit, foreign)

    def _asks_memoizer(self, task: Task) -> bool:
        """Return whether a memoizer of the user's own is asked for a task's key once more when it is handed over."""
        memoizer = self._memoizer
        keyed = task.details is not None and task.details.memo_key is not None
        return keyed and memoizer is not None and not is_own(memoizer)

    def _is_own(self, executor: Executor) -> bool:
        own = self._own.get(id(executor))
        if own is None:
            own = self._own[id(executor)] = is_own(executor) and not attribute(executor, "foreign", False)
        return own

    def _hand_over(self, task: Task, key: Any) -> None:
        """Submit a try, which may have been cancelled meanwhile."""
        executor = task.executor
        if task.key == key and executor is not None:
            self._submit(executor, task, key)

    def _submit(self, executor: Executor, task: Task, key: Any) -> None:
        try:
            if task.details is None or task.details.memo_key is None:
                executor.submit(key, task)
            else:
                self._submit_keyed(executor, task, key)
        except BaseException as error:
            self._not_taken(executor, task, key, error)
        if task.key != key:  # it was cancelled while it was submitted
            self._cancel_try(task, executor, key, False)

    def _not_taken(self, executor: Executor, task: Task, key: Any, error: BaseException) -> None:
        """Have a task tried elsewhere, or fail, whose executor raised something. Raises what came from a signal."""
        pass_signal(error)
        label = executor.label
        self._logger.info("%s was not taken by executor %r: %s", task, label, one_line(error))
        if not is_a(error, FlowError):
            failure = error
            error = ExecutorError(f"{task} was not taken by executor {label!r}: submit() raised {one_line(failure)}")
            error.__cause__ = failure
        fold(error)
        self._reactor.post(self._core.not_launched, (task, key, error))

    def _submit_keyed(self, executor: Executor, task: Task, key: Any) -> None:
        """Submit a try of a cached call; what was sent, or is to be used here, must be what its key stands for."""
        details = task.more()
        if executor.in_process:
            # Threads use the objects themselves: looked at just before, since afterwards the task may change them. What
            # an object said for the key counts here, too: it is asked again only when the task has ended.
            said, details.reductions = details.reductions, None
            with Given(said):
                details.changed = self._memory.differ(task)
            executor.submit(key, task)
        else:
            # What was sent is fixed by submit, so a change between the key and that shows afterwards.
            details.changed = None  # if its result comes before the next line is done, that looks itself
            said, details.reductions = details.reductions, None
            if said is None and task.tries > 1:
                # What was said for the key is sent with the first try only: else it would have to be kept all the time.
                with Recording() as said:
                    self._memory.differ(task)
            with Given(said):
                executor.submit(key, task)
                details.changed = self._memory.differ(task)

    def _cancel(self, task: Task, given: Any) -> None:
        executor, key, kill = given
        # An executor of the user's may hang in cancel(), so that is called apart.
        if self._is_own(executor):
            self._cancel_try(task, executor, key, kill)
            return
        calling = Noted(task, "executor", attribute(executor, "wrapped", executor), "cancel")
        self._isolation.do(
            task, calling, partial(self._cancel_try, task, executor, key, kill), partial(self._fail, task)
        )

    def _cancel_try(self, task: Task, executor: Executor, key: Any, kill: bool) -> None:
        try:
            executor.cancel([key], kill=kill)
        except BaseException as error:
            pass_signal(error)
            told = "Executor %r could not cancel a try of %s"
            self._logger.error(told, executor.label, task, exc_info=to_log(error))

    def _price(self, task: Task, error: BaseException) -> None:
        """Ask the retry handler, where it may take its time: it holds up nothing but tries after failures."""
        # Infinite: the retry handler is not asked, and no budget is large enough.
        if is_a(error, MissingInputs) and self._lacks(task, error):
            self._reactor.post(self._core.priced, (task, math.inf, error))
            return
        if self._retry_handler is None:
            self._reactor.post(self._core.priced, (task, 1.0, error))
            return
        limit = None
        if self._hook_timeout_s is not None:
            limit = Limit(self._hook_timeout_s, partial(self._not_priced, task, error))
        hook_calls.soon(partial(self._priced, task), error, lambda _call, _given: self._pricing(task), limit)

    def _lacks(self, task: Task, error: MissingInputs) -> bool:
        """Return whether inputs that a try did not find are not here either: no other node has them then.

        Nodes of an executor with a ``working_dir`` have disks of their own, on which they may be.
        """
        if task.executor is None or task.executor.working_dir is not None:
            return False
        directory = directory_of(task)
        paths = [path for path in error.inputs if isinstance(path, str)]
        return any(not os.path.lexists(os.path.join(directory, path)) for path in paths)

    def _priced(self, task: Task, error: BaseException) -> None:
        handler = self._retry_handler
        assert handler is not None
        try:
            with Noted(task, "retry_handler", handler):
                answer: object = handler(error, TaskView(task))
            cost = _cost(answer)
            problem = f"returned {shown(answer)}, which is no cost of 0 or more"
        except BaseException as failure:
            cost, problem = None, f"raised {one_line(failure)}"
            self._logger.error("%s failed", self._pricing(task), exc_info=to_log(failure))
        if cost is None:
            self._logger.error("%s %s, so it fails", self._pricing(task), problem)
            hook = hook_name("retry_handler", handler)
            self._not_priced(task, error, hook, f"{hook} {problem}")
        else:
            self._reactor.post(self._core.priced, (task, cost, error))

    def _not_priced(self, task: Task, error: BaseException, hook: str, told: str) -> None:
        """Have a task fail whose failure has no cost."""
        failed = HookError(f"{task} failed with {one_line(error)} and was not tried again, since {told}", hook)
        failed.__cause__ = error
        self._reactor.post(self._core.priced, (task, math.inf, failed))

    def _pricing(self, task: Task) -> str:
        return f"{hook_name('retry_handler', self._retry_handler)}, asked about a failure of {task},"

    # -- after a try

    def _join(self, task: Task, value: object) -> None:
        if runs_code_when_searched((value,), {}):
            self._search(task, "the search for futures in", "result", partial(self._join_now, task, value))
        else:
            self._join_now(task, value)

    def _join_now(self, task: Task, value: object) -> None:
        futures = returned_futures(str(task), value)
        details = task.more()
        details.joined = value
        # What runs code of the user's when it is searched is searched once; else a search anew costs no memory.
        if runs_code_when_searched((value,), {}):
            details.asked = futures
        self._emitter.joined(task, self._edges.named(futures))
        parents, foreign, failures = self._edges.split(futures)
        whole = self._edges.whole(foreign)
        if whole:
            # First: a circle fails the task, and ``joining`` then changes nothing.
            self._reactor.post(self._core.joining_parts, (task, whole))
        self._reactor.post(self._core.joining, (task, parents, len(foreign), failures))
        self._edges.watch(task, foreign)

    def _unwrap(self, task: Task, _given: object) -> None:
        if runs_code_when_searched((task.more().joined,), {}):
            self._search(task, "the search for results in", "result", partial(self._unwrap_now, task))
        else:
            self._unwrap_now(task)

    def _unwrap_now(self, task: Task) -> None:
        details = task.more()
        value, details.joined, details.asked = unwrapped(details.joined), None, None
        self._reactor.post(self._core.joined, (task, value))

    def _publish(self, task: Task, value: object) -> None:
        stage_out: Any = task.more().stage_out
        self._reactor.post(self._core.publishing, task)
        when_done(stage_out(), lambda moved: self._moved_out(task, value, _error_of(moved)))
        self._unstage_if_ended(task)

    def _moved_out(self, task: Task, value: object, error: BaseException | None) -> None:
        if error is None:
            self._memory.keep([(task, value)])
        else:
            self._reactor.post(self._core.published, (task, value, error))

    def _changed(self, task: Task, error: object) -> None:
        self._emitter.changed(task, task.state, error)


def _is_taken_at_once(executor: Executor, task: Task) -> bool:
    """Return whether an executor of Flow's own takes a task without a call of code of the user's."""
    if task.holds == PLAIN or (executor.in_process and (task.details is None or task.details.memo_key is None)):
        return True
    return are_harmless(task.args, task.kwargs)


def _may_run_code(task: Task) -> bool:
    """Return whether a search of a task's arguments may run code of the user's."""
    return task.holds != PLAIN and runs_code_when_searched(task.args, task.kwargs)


def _not_the_apps(task: Task, error: BaseException) -> BaseException:
    """Return an error for what was raised while a task was made ready or ended: it must not look like the app's own.

    Raises:
        BaseException: the one given, if it is that of a signal.
    """
    pass_signal(error)
    fold(error)
    if is_a(error, FlowError) or (task.details is not None and error is task.details.refused):
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
