"""Task records: what the graph, the kernel and the executors know of one call; and parents that calls share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, cast

from flow_core.graph.resolver import ATOMS
from flow_core.graph.states import PENDING, UNSCHED
from flow_core.interfaces.call import Call

if TYPE_CHECKING:
    from collections.abc import Sequence
    from concurrent.futures import Future
    from typing import Any

    from flow_core.apps.definition import AppDefinition, CallOptions
    from flow_core.futures.app_future import AppFuture
    from flow_core.graph.retry import RetryUsage
    from flow_core.interfaces.call import TaskStep, TryKey
    from flow_core.interfaces.executor import Executor
    from flow_core.interfaces.memoizer import Inputs, MemoKey
    from flow_core.interfaces.outcome import Place
    from flow_core.interfaces.staging import Transfer, Versions
    from flow_core.interfaces.waiting import Explanation
    from flow_core.remote.reductions import Reductions


UNKNOWN, FUTURES, PLAIN = range(3)
"""Contents of arguments: anything; futures of tasks and plain data; plain data, of types that name nothing to wait for
or to bring. What was found for one of them stays so: the lists that were looked into belong to the task alone."""


class TaskOwner(Protocol):
    """The kernel that a task lives in, as the task's future sees it."""

    def status_of(self, task: Task) -> str:
        """Return the name of the task's state, with all reports taken into account."""
        ...

    def cancel_task(self, task: Task, kill: bool) -> bool:
        """Cancel the task; return whether it is cancelled or will be."""
        ...

    def flush_for(self, task: Task) -> None:
        """Have its executor send what it has buffered."""
        ...

    def why_of(self, task: Task, timeout_s: float) -> Explanation:
        """Say why the task is not done yet."""
        ...


class Task(Call):
    """One call of an app, over all its tries. It *is* the Call that executors get: there is no second object a task.

    The graph owns it while it lives and forgets it when it ends; only its future may outlive it. What few tasks need
    is in ``details``.

    Attributes:
        tid: Id, counted from 0 in each run.
        app: The app that was called.
        options: Options of the call.
        future: The future that the caller got.
        home: The kernel it lives in; None in tests of the graph.
        snapshot: Its function as it was at the call; None for calls of uncached apps that stay in this process.
        state: State of the task.
        key: Key of the try that is out, 0 for none.
        tries: Number of tries made.
        started: Whether the current try is known to have started, or the task is past its tries.
        start: The last report of a start: key of the try, time (int64 ns UTC), place. Of the current try if the keys
            are the same.
        executor: Executor of the current try.
        waiting: Number of parents (or joined futures) that are not done.
        children: Tasks that wait for this one.
        value: The result, once it ended well.
        error: The exception, once it ended otherwise.
        spent: Use of its budgets; None while nothing failed.
        details: Details that few tasks need; None for most.
        holds: What its arguments surely hold and nothing else, as its call found: UNKNOWN, FUTURES or PLAIN.
    """

    __slots__ = (
        "app",
        "children",
        "details",
        "error",
        "executor",
        "future",
        "handed_ns",
        "holds",
        "home",
        "key",
        "options",
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
        home: TaskOwner | None = None,
    ) -> None:
        self.func = app.func
        # Set here and not by Call's own constructor, which would be a second call for each task.
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
        self.state = UNSCHED
        # No key is 0: the lower bits count from 1.
        self.key: TryKey | int = 0
        self.tries = 0
        self.started = False
        self.handed_ns = 0
        self.start: tuple[TryKey, int, Place] | None = None
        self.executor: Executor | None = None
        self.waiting = 0
        self.children: list[Task | SharedParents] | None = None
        self.value: object = None
        self.error: BaseException | None = None
        self.spent: RetryUsage | None = None
        self.details: TaskDetails | None = None
        self.holds = UNKNOWN

    def more(self) -> TaskDetails:
        """Return the details of the task, made when first asked for."""
        # Made late: most tasks need none of it, and a run may have a million of them at once.
        if self.details is None:
            self.details = TaskDetails()
        return self.details

    # -- for its future

    def status(self) -> str:
        """Return the name of the state."""
        return self.state.name if self.home is None else self.home.status_of(self)

    def cancel(self, kill: bool) -> bool:
        """Cancel the task; return whether it is cancelled or will be. False for a task of no kernel."""
        return self.home is not None and self.home.cancel_task(self, kill)

    def flush(self) -> None:
        """Have its executor send what it has buffered. Any thread."""
        if self.home is not None:
            self.home.flush_for(self)

    def why(self, timeout_s: float) -> Explanation | None:
        """Say why it is not done yet; None for a task of no kernel."""
        return None if self.home is None else self.home.why_of(self, timeout_s)

    def __str__(self) -> str:
        return f"task {self.tid} ({self.app.name})"

    def __repr__(self) -> str:
        return f"<Task {self.tid} {self.app.name} {self.state.name}>"


class TaskDetails:
    """Details that few tasks need, made when first asked for.

    Attributes:
        again: Why it is run though its result is remembered; empty where it is not.
        asked: The futures that it waits for, of its arguments or its join body, in their order, where only code of the
            user's can tell; None once they are done.
        failures: How parents failed.
        killed: Whether it was asked to be ended though it had started.
        promised: Whether it was said that it will end as cancelled.
        refused_by: Labels of executors that cannot run it.
        original: Its resolved arguments, before staging replaced files in them.
        memo_key: Key of its result.
        inputs: Files whose contents count in that key, and what they held when it was made; None where there are none.
        directory: The current directory of its call, where it has files.
        contested: Whether it declares an output that another unfinished task declares, too.
        changed: Names of what was not as in the key any more when the try was handed over; None while it is not known.
        leads: Whether identical calls in flight wait for this one.
        parent: The join task in whose body it was made.
        stage_out: Function that brings its outputs out, after a try that went well.
        found: Names of the files that its patterns match, by the numbers of the outputs.
        made: Versions of the outputs that it made, where its result is to be remembered.
        on_node: The transfers that the node makes.
        replaced: Paths of outputs where its tries move aside what lies there.
        reductions: What objects in its arguments said of themselves for its key, until it is sent.
        refused: Why the last executor refused it.
        joins: Whether it is the call of a join app.
        joined: Value that the body of the join app returned.
        started_ns: Start of the try that went well, int64 ns UTC.
        ended_ns: End of that try.
    """

    __slots__ = (
        "again",
        "asked",
        "changed",
        "contested",
        "directory",
        "ended_ns",
        "failures",
        "found",
        "inputs",
        "joined",
        "joins",
        "killed",
        "leads",
        "made",
        "memo_key",
        "on_node",
        "original",
        "parent",
        "promised",
        "reductions",
        "refused",
        "refused_by",
        "replaced",
        "stage_out",
        "started_ns",
    )

    def __init__(self) -> None:
        self.again = ""
        self.asked: Sequence[Future[Any]] | None = None
        self.contested = False
        self.directory = ""
        self.failures: list[tuple[str, BaseException, object]] = []
        self.killed = False
        self.promised = False
        self.refused_by: set[str] = set()
        self.original: tuple[tuple[object, ...], dict[str, object]] | None = None
        self.memo_key: MemoKey | None = None
        self.inputs: Inputs | None = None
        self.changed: tuple[str, ...] | None = ()
        self.leads = False
        self.found: dict[int, list[str]] = {}
        self.made: Versions | None = None
        self.parent: Task | None = None
        self.stage_out: object = None
        self.on_node: tuple[Transfer, ...] = ()
        self.replaced: tuple[str, ...] = ()
        self.refused: BaseException | None = None
        self.reductions: Reductions | None = None
        self.joins = False
        self.joined: object = None
        self.started_ns = 0
        self.ended_ns = 0


class SharedArguments(tuple["Future[Any]", ...]):
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
            # Two threads may both do this, with equal results: cheaper than a lock for all.
            results = tuple([cast("AppFuture[Any]", future)._result for future in self])
            self.plain = ATOMS.issuperset(map(type, results))
            self._results = results
        return results


class SharedParents:
    """Stands for many parents that many tasks wait for together: m and n of them make m + n edges, not m times n.

    Owned by the graph.

    Attributes:
        futures: The futures of the parents as they stood in the arguments; None once all have ended, so that no results
            are held.
        common: What its children share as arguments or ``inputs``, if these are those futures and nothing else; None
            once all have ended.
        state: ``pending`` until all parents have ended, then ``exec_done``.
        waiting: Number of parents that have not ended.
        children: Tasks that wait for them.
        failures: How parents failed.
        error: None: what failed is in ``failures``.
    """

    __slots__ = ("children", "common", "error", "failures", "futures", "state", "waiting")

    def __init__(self, futures: Sequence[Future[Any]]) -> None:
        self.futures: Sequence[Future[Any]] | None = futures
        self.common: SharedArguments | None = None
        self.state = PENDING
        self.waiting = 0
        self.children: list[Task | SharedParents] | None = None
        self.failures: list[tuple[str, BaseException, object]] = []
        self.error: BaseException | None = None

    def more(self) -> SharedParents:
        """Return where failures of parents are kept, as ``Task.more`` does."""
        return self
