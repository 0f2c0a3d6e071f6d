"""Answers to questions from other processes of the user: how far a run is, what its tasks do, and orders to it.

Each function takes a request and returns what JSON can hold. They are called by the thread of live queries, one at a
time. Nothing of the user's is called but executors of their own, with a bound. Times are int64 nanoseconds UTC.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from flow_core.bounded_calls import BoundedCall, NoAnswerError
from flow_core.graph.states import State
from flow_core.guard import one_line
from flow_core.hooks import is_own
from flow_core.interfaces.executor import BlockExecutor, Executor
from flow_core.kernel.short_texts import short_text
from flow_core.kernel.summary import summarize

if TYPE_CHECKING:
    from flow_core.graph.task import Task
    from flow_core.interfaces.waiting import Cause
    from flow_core.kernel.failure_tally import FailureTally
    from flow_core.kernel.live import Answers
    from flow_core.kernel.reactor import Reactor

T = TypeVar("T")
_Request = Mapping[str, Any]
_EXECUTOR_S = 2.0  # seconds for an executor of the user's to say how it is; a person waits for the answer
_SCALE_S = 60.0  # seconds for blocks to be asked for or given back: a scheduler's command may take half of it
_MOST = 10_000
"""Tasks in one answer, at most: some megabytes."""
_MOST_CANCELLED = 1000  # tasks that one request names
_NOBODY: tuple[Task, ...] = ()


class LiveAnswers:
    """Answers of one kernel.

    Args:
        reactor: The graph.
        executors: The executors by label.
        failures: The failed tasks so far.
        held: Says what holds back calls of apps.
        why: Says why a task is not done, or with None why all are not. Raises LookupError.
        cancel: Cancels a task, with ``kill`` also one that runs; tells whether it is or will be.
    """

    def __init__(
        self,
        reactor: Reactor,
        executors: Mapping[str, Executor],
        failures: FailureTally,
        held: Callable[[], Sequence[Cause]],
        why: Callable[[int | None], str],
        cancel: Callable[[Task, bool], bool],
    ) -> None:
        self._reactor = reactor
        self._executors = executors
        self._failures = failures
        self._held = held
        self._why = why
        self._cancel = cancel

    def by_name(self) -> Answers:
        """Return the functions that answer, by what is asked."""
        return {
            "why": self.why,
            "status": self.status,
            "tasks": self.tasks,
            "task": self.task,
            "cancel": self.cancel,
            "scale": self.scale,
        }

    def why(self, request: _Request) -> str:
        """Say why ``task`` (an id, or None for all unfinished ones) is not done."""
        number = request.get("task")
        return self._why(None if number is None else _number(number))

    def status(self, _request: _Request) -> dict[str, Any]:
        """Say how far the run is: ``tasks``, ``unfinished`` by app and state, ``executors``, ``failures``, ``held``.

        ``cost_s`` is the time of a CPU that the answer took.
        """
        begin_s = time.thread_time()
        unfinished: dict[str, Counter[str]] = {}
        for task in self._live():
            unfinished.setdefault(task.app.name, Counter())[task.state.name] += 1
        found = {
            "now_ns": time.time_ns(),
            "tasks": asdict(summarize(self._reactor)),
            "unfinished": unfinished,
            "executors": [self._executor(label) for label in self._executors],
            "failures": [asdict(group) for group in self._failures.groups()],
            "held": [cause.text for cause in self._held()],
        }
        return {**found, "cost_s": time.thread_time() - begin_s}

    def tasks(self, request: _Request) -> dict[str, Any]:
        """List unfinished tasks: of ``app``, in ``states``, at most ``limit`` from ``offset`` on, by their ids."""
        app, states = request.get("app"), request.get("states")
        offset, limit = _number(request.get("offset", 0)), min(_number(request.get("limit", 100)), _MOST)
        chosen = [
            task
            for task in self._live()
            if (not app or task.app.name == app) and (not states or task.state.name in states)
        ]
        chosen.sort(key=lambda task: task.tid)
        return {"total": len(chosen), "tasks": [_row(task) for task in chosen[offset : offset + limit]]}

    def task(self, request: _Request) -> dict[str, Any]:
        """Describe the unfinished task ``task``: its row, its arguments, and why it is not done. LookupError: none."""
        task = self._found(_number(request.get("task")))
        return {
            **_row(task),
            "arguments": [short_text(value) for value in task.args]
            + [f"{name}={short_text(value)}" for name, value in task.kwargs.items()],
            "why": self._why(task.tid),
        }

    def cancel(self, request: _Request) -> dict[str, Any]:
        """Cancel ``tasks`` (ids), with ``kill`` also those that run; say of each how it went."""
        ids = request.get("tasks")
        if not isinstance(ids, list) or not ids or len(ids) > _MOST_CANCELLED:
            raise ValueError(f"name between 1 and {_MOST_CANCELLED} tasks to cancel")
        return {str(number): self._cancelled(_number(number), bool(request.get("kill"))) for number in ids}

    def scale(self, request: _Request) -> dict[str, Any]:
        """Bring the executor ``label`` to ``blocks`` blocks: ask for more, or give idle ones back."""
        label, wanted = str(request.get("label")), _number(request.get("blocks"))
        executor = self._executors.get(label)
        if executor is None:
            raise LookupError(f"there is no executor {label!r}: this run has {', '.join(self._executors)}")
        if not isinstance(executor, BlockExecutor) or not executor.scaling_enabled:
            raise LookupError(f"executor {label!r} has no blocks: it cannot be scaled")
        active, most = self._bounded(_EXECUTOR_S, label, partial(_blocks_of, executor))
        if most is not None and wanted > most:
            raise ValueError(f"executor {label!r} has at most {most} blocks (max_blocks of its provider)")
        more = wanted - active
        if more > 0:
            done = self._bounded(_SCALE_S, label, partial(executor.scale_out, more))
        elif more < 0:
            done = self._bounded(_SCALE_S, label, partial(executor.scale_in, -more, timeout_s=_EXECUTOR_S))
        else:
            done = ()
        return {"before": active, "added": list(done) if more > 0 else [], "freed": list(done) if more < 0 else []}

    # -- how

    def _live(self) -> tuple[Task, ...]:
        # One copy under the lock; all that is slow is done without it.
        return self._reactor.call(lambda: tuple(self._reactor.core.live.values()), _NOBODY)

    def _found(self, number: int) -> Task:
        task = self._reactor.call(lambda: self._reactor.core.live.get(number), None)
        if task is None:
            known = summarize(self._reactor).submitted
            there = "it has ended" if 0 <= number < known else f"the run has {known} tasks so far"
            raise LookupError(f"no task {number} is unfinished: {there}")
        return task

    def _cancelled(self, number: int, kill: bool) -> str:
        try:
            task = self._found(number)
        except LookupError as error:
            return str(error.args[0])
        if self._cancel(task, kill):
            return "cancelled"
        if task.state.final:
            return "it has ended meanwhile"
        if kill:
            return "it runs, and its executor cannot end it"
        return "it runs already: only --kill ends it"

    def _executor(self, label: str) -> dict[str, Any]:
        executor = self._executors[label]
        shown: dict[str, Any] = {"label": label, "kind": type(executor).__name__}
        try:
            return {**shown, **self._bounded(_EXECUTOR_S, label, lambda: _look(executor))}
        except LookupError as error:
            return {**shown, "error": str(error.args[0])}

    def _bounded(self, seconds: float, label: str, call: Callable[[], T]) -> T:
        """Call an executor. Raises LookupError: it did not answer in time, or raised."""
        try:
            if seconds == _EXECUTOR_S and is_own(self._executors[label]):
                return call()
            return BoundedCall("flow-look", call).wait(seconds)
        except NoAnswerError:
            raise LookupError(f"executor {label!r} did not answer within {seconds:g} s") from None
        except BaseException as error:  # no signal comes to this thread
            raise LookupError(f"executor {label!r}: {one_line(error)}") from None


def _look(executor: Executor) -> dict[str, Any]:
    """Return what JSON can hold of an executor's load and blocks, whatever it gives for numbers and texts."""
    load = executor.load()
    blocks = executor.block_infos() if isinstance(executor, BlockExecutor) else ()
    return {
        "waiting": int(load.waiting),
        "running": int(load.running),
        "slots": int(load.slots),
        "slots_per_block": int(load.slots_per_block),
        "blocks": {str(state): int(number) for state, number in load.blocks},
        "block_list": [
            {
                "block": str(one.block),
                "job_id": str(one.job_id),
                "state": str(one.state),
                "reason": str(one.reason),
                "active": bool(one.active),
                "managers": int(one.managers),
                "workers": int(one.workers),
                "age_s": float(one.age_s),
            }
            for one in blocks
        ],
    }


def _blocks_of(executor: BlockExecutor) -> tuple[int, int | None]:
    """Return how many blocks count, and how many there may be."""
    most = executor.most_blocks()
    return sum(one.active for one in executor.block_infos()), None if most is None else int(most)


def _number(value: object) -> int:
    # True is an int to Python, and would mean task 1.
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"a number is needed, not {value!r}")
    return value


def _row(task: Task) -> dict[str, Any]:
    start = task.start if task.start is not None and task.start[0] == task.key else None
    place = None if start is None or task.state is not State.running else start[2]
    spec = task.spec
    return {
        "task": task.tid,
        "app": task.app.name,
        "label": task.options.label,
        "state": task.state.name,
        "executor": "" if task.executor is None else task.executor.label,
        "tries_made": task.tries,
        "waits_for": task.waiting,
        "since_ns": (start[1] if start is not None and task.state is State.running else task.handed_ns) or None,
        "priority": spec.priority,
        "place": None if place is None else asdict(place),
    }
