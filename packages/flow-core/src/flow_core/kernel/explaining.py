"""Explanations of waiting tasks: put together from what the graph, staging and the executors say."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from flow_core.bounded_calls import BoundedCall, NoAnswerError
from flow_core.files import masked
from flow_core.futures.explained import explained
from flow_core.futures.lean import is_settling
from flow_core.graph.states import State
from flow_core.graph.waiting import Awaited, causes_of
from flow_core.guard import one_line
from flow_core.hooks import going_on_for
from flow_core.interfaces.staging import Direction
from flow_core.interfaces.waiting import Cause, CauseKind, Explanation, count, shown_state, since
from flow_core.kernel.isolation import runs_code_when_searched
from flow_core.kernel.join import returned_futures

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence
    from concurrent.futures import Future

    from flow_core.graph.task import Task
    from flow_core.interfaces.executor import Executor
    from flow_core.kernel.arguments import Arguments
    from flow_core.kernel.call_dependencies import CallDependencies
    from flow_core.kernel.progress import NodeFiles
    from flow_core.kernel.reactor import Reactor
    from flow_core.staging.batch import Moving
    from flow_core.staging.manager import StagingManager

T = TypeVar("T")

ANSWER_S = 2.0
"""Seconds that an executor may take to answer; a person waits for it, so only the magnitude matters."""
_GRACE_S = 0.25  # seconds beyond what an executor was given, for its answer to come back from its thread
_STEPS = 1000
"""Tasks that are followed to the begin of a chain of dependencies: chains may be as long as the run."""
_NAMED_FILES = 3  # of a task, in one answer; the others are counted
_ASKED = 32  # tasks of a group that are all asked about; of more, those on both sides of where the answer changes
_NOBODY: tuple[Task, ...] = ()


@dataclass(frozen=True, slots=True)
class WaitingGroup:
    """Unfinished tasks that are alike: of one app, in one state, at one executor, asking for the same.

    Attributes:
        app: Name of the app.
        state: Name of the state.
        number: Number of these tasks.
        sample: Why one of them, the oldest, is not done.
        exact: Whether each of them was asked about; else those between two that wait for the same count as like them.
    """

    app: str
    state: str
    number: int
    sample: Explanation
    exact: bool = True

    def __str__(self) -> str:
        causes = "; ".join(cause.text for cause in self.sample.causes)
        which = "" if self.number == 1 else f", such as task {self.sample.task_id}"
        name = (
            f"task {self.sample.task_id} ({self.app})"
            if self.number == 1
            else f"{self._about}{self.number:,} x {self.app}"
        )
        return f"{name}, {shown_state(self.state)}{self.sample.since}{which}: {causes}"

    @property
    def _about(self) -> str:
        return "" if self.exact else "about "


@dataclass(frozen=True, slots=True)
class Overview:
    """Why the unfinished tasks of a run are not done yet. ``str()`` gives a line a group, the largest first.

    Attributes:
        unfinished: Number of unfinished tasks.
        groups: Tasks that are alike, together.
        calls: Causes that hold back calls of apps that have not returned their futures yet, such as ``max_pending``.
        files: Number and speed of files being moved, as text; empty if there are none.
    """

    unfinished: int
    groups: tuple[WaitingGroup, ...]
    calls: tuple[Cause, ...] = ()
    files: str = ""

    def __str__(self) -> str:
        if not self.unfinished and not self.calls:
            return "No task is unfinished."
        lines = [f"{count(self.unfinished, 'task is', 'tasks are')} unfinished:"]
        told = [*self.groups, *(one.text for one in self.calls), *([self.files] if self.files else [])]
        return "\n".join([*lines, *(f"- {one}" for one in told)])


class Explainer:
    """Says why tasks are not done. Any thread; every answer comes within a bound, whatever executors do."""

    def __init__(
        self,
        reactor: Reactor,
        edges: CallDependencies,
        arguments: Arguments,
        staging: StagingManager,
        on_nodes: NodeFiles,
    ) -> None:
        self._on_nodes = on_nodes
        self._reactor = reactor
        self._edges = edges
        self._arguments = arguments
        self._staging = staging

    def of(self, task: Task, timeout_s: float = ANSWER_S) -> Explanation:
        """Say all that keeps a task from being done; with a timeout of 0 only what is known at once.

        Its executor is asked in a thread of its own, and so are those of the task that a chain of dependencies begins
        with. A thread that settles futures waits for nothing: the answer may need that very thread.
        """
        patience_s = 0.0 if is_settling() else timeout_s
        self._reactor.pump()
        causes = self._of(task, patience_s)
        if task.state.final:
            return explained(task.future, str(task), task.state.name, task.tid)
        since_ns = task.handed_ns if task.state is State.launched and task.handed_ns else None
        return Explanation(str(task), task.state.name, tuple(causes), task.tid, since_ns)

    def overview(self, timeout_s: float = ANSWER_S, calls: Sequence[Cause] = ()) -> Overview:
        """Say why the unfinished tasks are not done, those that are alike together; takes ``timeout_s`` in all."""
        # One copy under the lock; all that is slow is done without it.
        tasks = self._reactor.call(lambda: tuple(self._reactor.core.live.values()), _NOBODY)
        groups: dict[Hashable, list[Task]] = {}
        for task in tasks:
            groups.setdefault(_alike(task), []).append(task)
        deadline = time.monotonic() + timeout_s
        told = []
        # The largest first: it has the time of the answer, should an executor take all of it.
        for group in sorted(groups.values(), key=len, reverse=True):
            told += self._told(group, deadline)
        return Overview(
            len(tasks), tuple(told), tuple(calls), _all_files([*self._staging.moves.all(), *self._on_nodes.all()])
        )

    # -- how

    def _told(self, group: list[Task], deadline: float) -> list[WaitingGroup]:
        """Return tasks that are alike by what the graph knows as groups that wait for the same, the largest first.

        Of tasks that were handed over only the executor knows which run, until their starts are reported.
        """
        answers: dict[int, Explanation] = {}

        def alike(place: int) -> frozenset[CauseKind]:
            """Return for what a task waits. Asks no more once there is no time left."""
            answer = answers.get(place)
            if answer is None:
                if answers and (time.monotonic() >= deadline or _unknown(answers[0])):
                    return frozenset(cause.kind for cause in answers[0].causes)
                answer = answers[place] = self.of(group[place], max(0.0, deadline - time.monotonic()))
            return frozenset(cause.kind for cause in answer.causes)

        kinds: dict[frozenset[CauseKind], list[int]] = {}
        exact = len(group) <= _ASKED
        for place, kind in enumerate(map(alike, range(len(group))) if exact else _between(alike, len(group))):
            kinds.setdefault(kind, []).append(place)
        told = []
        for places in sorted(kinds.values(), key=len, reverse=True):
            sample = next((answers[place] for place in places if place in answers), answers[0])
            # It may have ended while the executor was asked.
            if not sample.done:
                told.append(
                    WaitingGroup(group[0].app.name, sample.state, len(places), sample, exact or len(kinds) == 1)
                )
        return told

    def _of(self, task: Task, patience_s: float) -> list[Cause]:
        core = self._reactor.core
        futures = self._futures(task)
        awaited = self._edges.awaited(futures) if futures else ()
        leader = self._reactor.call(lambda: core.leader_of(task), None) if self._may_follow(task) else None
        causes = self._own(task, awaited, leader, patience_s)
        first = leader if leader is not None else self._first(futures)
        if first is not None and first is not task:
            causes += self._begin(first, patience_s)
        return causes

    def _own(self, task: Task, awaited: Sequence[Awaited], leader: Task | None, patience_s: float) -> list[Cause]:
        """Return what keeps a task itself, with what staging or its executor says of it."""
        causes = causes_of(task, awaited, leader, self._reactor.core.budgets, time.time_ns())
        # A hook that is being called is why the state does not change: more than the state itself says.
        if hooks := _hooks(task):
            return [*hooks, *causes[1:]]
        if task.state is State.staging:
            return [*causes, *self._files(task)]
        if task.state is State.running:  # it may wait for another task, or nothing may be heard of its node
            answer = asked(task.executor, task.key, patience_s)
            said = [one for one in answer if one.kind not in (CauseKind.RUNNING, CauseKind.QUEUED)]
            # Its worker is away, the executor says: nobody here knows whether it runs.
            if any(one.kind is CauseKind.NO_WORKER for one in said):
                causes = [one for one in causes if one.kind is not CauseKind.RUNNING]
            return [*causes, *self._files(task), *said]
        answer = asked(task.executor, task.key, patience_s) if task.state is State.launched else []
        return [*answer, *causes[1:]] if answer else causes

    def _futures(self, task: Task) -> list[Future[Any]]:
        """Return the futures that a task waits for, those that are done among them."""
        # Found before, where to search again would run code of the user's, which may hang.
        if task.waiting and task.details is not None and (asked := task.details.asked) is not None:
            return [*asked]
        if task.state is State.joining:
            joined = task.details.joined if task.details is not None else None
            if runs_code_when_searched((joined,), {}):  # which may hang, and whoever asks would wait for it
                return []
            try:
                return returned_futures(str(task), joined)
            except Exception:  # the last of them was done a moment ago
                return []
        if not task.waiting or runs_code_when_searched(task.args, task.kwargs):
            return []
        return self._arguments.held(task)

    @staticmethod
    def _may_follow(task: Task) -> bool:
        return task.state is State.pending and task.details is not None and task.details.memo_key is not None

    def _first(self, futures: Sequence[Future[Any]]) -> Task | None:
        """Return the task that a chain of dependencies begins with, None where that is none of this kernel's."""
        task = self._edges.first_of(futures)
        for _ in range(_STEPS):
            if task is None or not task.waiting:
                return task
            above = self._edges.first_of(self._futures(task))
            if above is None:
                return task
            task = above
        return task

    def _begin(self, first: Task, patience_s: float) -> list[Cause]:
        causes = self._own(first, (), None, patience_s)
        if first.state.final:
            return []
        told = "; ".join(cause.text for cause in causes)
        text = f"{first}, with which this begins, is {shown_state(first.state.name)}: {told}"
        return [Cause(CauseKind.DEPENDENCY, text, (first.tid,))]

    def _files(self, task: Task) -> list[Cause]:
        moving = [*self._staging.moves.of_task(task.tid), *self._on_nodes.of_task(task)]
        going = [one for one in moving if one.since_ns is not None]
        causes = []
        now_ns = time.time_ns()
        for one in going[:_NAMED_FILES]:
            way = "in" if one.transfer.direction is Direction.IN else "out"
            begun = one.since_ns or now_ns
            far = "" if one.progress is None else f": {one.progress}"
            mover = "its node" if one.method is None else type(one.method).__name__
            how = f"is being brought {way} by {mover} {since(begun, now_ns)}{far}"
            causes.append(Cause(CauseKind.STAGING, f"{masked(one.transfer.file.url)} {how}", since_ns=begun))
        if going[_NAMED_FILES:]:
            more = count(len(going) - _NAMED_FILES, "more file is", "more files are")
            causes.append(Cause(CauseKind.STAGING, f"{more} being moved"))
        if len(moving) > len(going):
            files = count(len(moving) - len(going), "file waits", "files wait")
            waits = [(one.method, [one.transfer]) for one in moving if one.since_ns is None and one.method is not None]
            many = f"files of {self._staging.moves.most(waits)} tasks are moved at once from or to one host"
            limit = f"{many} (data_management_max_threads, or threads of the method)"
            causes.append(Cause(CauseKind.STAGING, f"{files} for a turn: {limit}"))
        return causes


def _hooks(task: Task) -> list[Cause]:
    """Return the hooks that are called for a task just now, as causes."""
    now_ns = time.time_ns()
    return [
        Cause(
            CauseKind.PREPARING,
            call.clause(since(call.since_ns, now_ns)),
            since_ns=call.since_ns,
        )
        for call in going_on_for(task)
    ]


def _all_files(moving: Sequence[Moving]) -> str:
    if not moving:
        return ""
    far = [one.progress for one in moving if one.progress is not None]
    files = count(len(moving), "file is", "files are")
    moved, speed = sum(one.moved for one in far), sum(one.speed for one in far)
    told = f": {moved:,} bytes so far, {speed:,.0f} bytes/s" if far else ""
    return f"{files} being moved{told} (kernel.transfers() names them)"


def asked(executor: Executor | None, key: Any, patience_s: float) -> list[Cause]:
    """Ask an executor why a try is not done, and wait a quarter of a second longer than it may take."""
    if executor is None or not key:
        return []
    # Executors answer at once from what they know, so no thread is needed.
    if patience_s <= 0:
        return _answer(executor, key, 0.0)
    try:
        return BoundedCall("flow-why", lambda: _answer(executor, key, patience_s)).wait(patience_s + _GRACE_S)
    except NoAnswerError:
        text = f"executor {executor.label!r} did not say within {patience_s:.3g} s why"
        return [Cause(CauseKind.UNKNOWN, text)]


def _answer(executor: Executor, key: Any, patience_s: float) -> list[Cause]:
    try:
        return list(executor.why_waiting(key, timeout_s=patience_s))
    except BaseException as error:  # on a thread of its own, which gets no signals
        text = f"executor {executor.label!r} could not say why: its why_waiting() raised {one_line(error)}"
        return [Cause(CauseKind.UNKNOWN, text)]


def _unknown(answer: Explanation) -> bool:
    return any(cause.kind is CauseKind.UNKNOWN for cause in answer.causes)


def _between(alike: Callable[[int], T], number: int) -> list[T]:
    """Return what is true of each of so many places, where those between two that are alike are as these."""
    found: list[T] = [alike(0)] * number
    todo = [(0, number - 1)]
    while todo:
        first, last = todo.pop()
        if alike(first) == alike(last):
            found[first : last + 1] = [alike(first)] * (last + 1 - first)
        elif last - first == 1:
            found[first], found[last] = alike(first), alike(last)
        else:
            middle = (first + last) // 2
            todo += [(first, middle), (middle, last)]
    return found


def _alike(task: Task) -> Hashable:
    label = None if task.executor is None else task.executor.label
    details = task.details
    doomed = details is not None and bool(details.failures)
    return task.app.name, task.state, label, bool(task.waiting), task.started, doomed, task.spec
