"""The record of a task: what the graph, the kernel and the executors know of one call; and parents in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, cast

from flow_core.graph.resolver import ATOMS
from flow_core.graph.states import State
from flow_core.interfaces.call import Call

if TYPE_CHECKING:
    from collections.abc import Sequence
    from concurrent.futures import Future
    from typing import Any

    from flow_core.apps.definition import AppDefinition, CallOptions
    from flow_core.futures.app_future import AppFuture
    from flow_core.graph.retry import Spent
    from flow_core.interfaces.call import TaskStep, TryKey
    from flow_core.interfaces.executor import Executor
    from flow_core.interfaces.memoizer import MemoKey
    from flow_core.interfaces.outcome import Place
    from flow_core.interfaces.staging import Transfer
    from flow_core.interfaces.waiting import Explanation


class Home(Protocol):
    """What a task's future asks of the kernel that the task lives in."""

    def status_of(self, task: Task) -> str:
        """Return the name of the task's state, with all reports taken into account."""
        ...

    def cancel_task(self, task: Task, kill: bool) -> bool:
        """Cancel the task; tell whether it is cancelled or will be."""
        ...

    def flush_for(self, task: Task) -> None:
        """Send what is buffered on the task's way."""
        ...

    def why_of(self, task: Task, timeout_s: float) -> Explanation:
        """Say why the task is not done yet."""
        ...


class Task(Call):
    """One call of an app, over all its tries. It *is* the Call that executors get: there is no second object a task.

    The graph owns it while it lives and forgets it when it ends; only its future may outlive it. What few tasks need
    is in ``rare``.

    Attributes:
        tid: Id, counted from 0 in each run.
        app: What was called.
        options: What the call asks of Flow.
        future: What the caller got.
        home: The kernel it lives in; None in tests of the graph.
        snapshot: What its function was at the call; None for calls of uncached apps that stay in this process.
        state: Where the task is on its way.
        key: Key of the try that is out, 0 for none.
        tries: How many tries were made.
        started: Whether the current try is known to have started, or the task is past its tries.
        start: The last report of a start: key of the try, time (int64 ns UTC), place. Of the current try if the keys
            are the same.
        executor: Where the current try runs.
        waiting: How many parents (or joined futures) are not done.
        children: Tasks that wait for this one.
        value: The result, once it ended well.
        error: The exception, once it ended otherwise.
        spent: What its failures cost; None while there were none.
        rare: What few tasks need; None for most.
    """

    __slots__ = (
        "app",
        "children",
        "error",
        "executor",
        "future",
        "home",
        "key",
        "options",
        "rare",
        "spent",
        "start",
        "started",
        "state",
        "tid",
        "tries",
        "value",
        "waiting",
    )

    def __init__(
        self,
        tid: int,
        app: AppDefinition,
        args: tuple[object, ...],
        kwargs: dict[str, object],
        options: CallOptions,
        future: AppFuture[Any],
        home: Home | None = None,
    ) -> None:
        self.func = app.func
        self.args = args
        self.kwargs = kwargs
        self.spec = options.spec
        self.steps: tuple[TaskStep, ...] = ()
        self.snapshot = None
        self.tid = tid
        self.app = app
        self.options = options
        self.future = future
        self.home = home
        self.state = State.unsched
        self.key: TryKey | int = 0
        self.tries = 0
        self.started = False
        self.start: tuple[TryKey, int, Place] | None = None
        self.executor: Executor | None = None
        self.waiting = 0
        self.children: list[Task | Junction] | None = None
        self.value: object = None
        self.error: BaseException | None = None
        self.spent: Spent | None = None
        self.rare: Rare | None = None

    def more(self) -> Rare:
        """Return what few tasks need, made when first asked for."""
        if self.rare is None:
            self.rare = Rare()
        return self.rare

    # -- what its future asks

    def status(self) -> str:
        """Return the name of the state."""
        return self.state.name if self.home is None else self.home.status_of(self)

    def cancel(self, kill: bool) -> bool:
        """Cancel it; tell whether it is cancelled or will be."""
        return self.home is not None and self.home.cancel_task(self, kill)

    def flush(self) -> None:
        """Send what is buffered on its way."""
        if self.home is not None:
            self.home.flush_for(self)

    def why(self, timeout_s: float) -> Explanation | None:
        """Say why it is not done yet; None for a task of no kernel."""
        return None if self.home is None else self.home.why_of(self, timeout_s)

    def __str__(self) -> str:
        return f"task {self.tid} ({self.app.name})"

    def __repr__(self) -> str:
        return f"<Task {self.tid} {self.app.name} {self.state.name}>"


class Rare:
    """What few tasks need.

    Attributes:
        asked: The futures in its arguments in their order, where only a resolver of the user's own can tell.
        failures: How parents failed.
        killed: Whether it was asked to be ended though it had started.
        promised: Whether it was said that it will end as cancelled.
        refused_by: Labels of executors that cannot run it.
        original: Its resolved arguments, before staging replaced files in them.
        memo_key: Key of its result.
        directory: The current directory of its call, where it has files.
        changed: Names of what was not as in the key any more when the try was handed over; None while it is not known.
        leads: Whether identical calls in flight wait for this one.
        parent: The join task in whose body it was made.
        stage_out: What brings its outputs out, after a try that went well.
        on_node: The transfers that the node makes, if anybody wants to know of them.
        refused: Why the last executor refused it.
        joins: Whether it is the call of a join app.
        joined: What the body of the join app returned.
        started_ns: Start of the try that went well, int64 ns UTC.
        ended_ns: End of that try.
    """

    __slots__ = (
        "asked",
        "changed",
        "directory",
        "ended_ns",
        "failures",
        "joined",
        "joins",
        "killed",
        "leads",
        "memo_key",
        "on_node",
        "original",
        "parent",
        "promised",
        "refused",
        "refused_by",
        "stage_out",
        "started_ns",
    )

    def __init__(self) -> None:
        self.asked: Sequence[Future[Any]] | None = None
        self.directory = ""
        self.failures: list[tuple[str, BaseException, object]] = []
        self.killed = False
        self.promised = False
        self.refused_by: set[str] = set()
        self.original: tuple[tuple[object, ...], dict[str, object]] | None = None
        self.memo_key: MemoKey | None = None
        self.changed: tuple[str, ...] | None = ()
        self.leads = False
        self.parent: Task | None = None
        self.stage_out: object = None
        self.on_node: tuple[Transfer, ...] = ()
        self.refused: BaseException | None = None
        self.joins = False
        self.joined: object = None
        self.started_ns = 0
        self.ended_ns = 0


class Common(tuple["Future[Any]", ...]):
    """Arguments (or ``inputs``) that many calls have in common, all of them futures of tasks: resolved once for all.

    It lives, and holds results, as long as one of these calls waits to be resolved.

    Attributes:
        plain: Once resolved, whether all results are of types that surely are no files.
    """

    plain = False
    _results: tuple[object, ...] | None = None

    def resolved(self) -> tuple[object, ...]:
        """Return the results; all the tasks have ended well. Any thread."""
        results = self._results
        if results is None:
            results = tuple([cast("AppFuture[Any]", future)._result for future in self])
            self.plain = ATOMS.issuperset(map(type, results))
            self._results = results
        return results


class Junction:
    """Stands for many parents that many tasks wait for together: m and n of them make m + n edges, not m times n.

    Owned by the graph.

    Attributes:
        futures: The futures of the parents as they stood in the arguments; None once the junction is open, so that it
            holds no results.
        common: What its children share as arguments or ``inputs``, if these are those futures and nothing else; None
            once the junction is open.
        state: ``pending`` until all parents have ended, then ``exec_done``.
        waiting: How many parents have not ended.
        children: Who waits for it.
        asked: The futures in its arguments in their order, where only a resolver of the user's own can tell.
        failures: How parents failed.
        error: None: what failed is in ``failures``.
    """

    __slots__ = ("children", "common", "error", "failures", "futures", "state", "waiting")

    def __init__(self, futures: Sequence[Future[Any]]) -> None:
        self.futures: Sequence[Future[Any]] | None = futures
        self.common: Common | None = None
        self.state = State.pending
        self.waiting = 0
        self.children: list[Task | Junction] | None = None
        self.failures: list[tuple[str, BaseException, object]] = []
        self.error: BaseException | None = None

    def more(self) -> Junction:
        """Return where failures of parents are kept, as ``Task.more`` does."""
        return self
