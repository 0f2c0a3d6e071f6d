"""Live tasks as users see them: what hooks are given of a task, and ``DataFlowKernel.tasks``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from flow_core.interfaces.task_fields import asked_for

if TYPE_CHECKING:
    from collections.abc import Callable

    from flow_core.files import File
    from flow_core.futures.app_future import AppFuture
    from flow_core.graph.task import Task
    from flow_core.interfaces.waiting import Explanation
    from flow_core.kernel.reactor import Reactor


class TaskView:
    """One task, as it is whenever it is looked at. Any thread. Views of one task are equal.

    It holds the task and its arguments in memory. A retry handler is given one while its task is between two tries.

    Attributes:
        tid: Id, counted from 0 in each run.
    """

    __slots__ = ("_task", "tid")

    def __init__(self, task: Task) -> None:
        self._task = task
        self.tid = task.tid

    # -- what was called

    @property
    def app(self) -> str:
        """Name of the app."""
        return self._task.app.name

    @property
    def kind(self) -> str:
        """Kind of the app: ``python``, ``bash`` or ``join``."""
        return self._task.app.kind.value

    @property
    def func(self) -> Callable[..., object]:
        """The function of the app, undecorated."""
        return self._task.app.func

    @property
    def args(self) -> tuple[object, ...]:
        """Arguments by position: with their results in the place of futures once these are done."""
        return self._given()[0]

    @property
    def kwargs(self) -> dict[str, object]:
        """Arguments by keyword, a copy; as ``args``. With ``inputs`` and ``outputs``, where there are such."""
        return dict(self._given()[1])

    @property
    def label(self) -> str:
        """The ``label=`` of the call; empty where it has none."""
        return self._task.options.label

    @property
    def outputs(self) -> tuple[File, ...]:
        """Files that the call declares as its outputs."""
        return self._task.options.outputs

    @property
    def resources(self) -> dict[str, Any]:
        """What the next or current try asks for beyond a slot, by the names of a ``resource_specification``."""
        return {name: value for name, value in asked_for(self._task.spec).items() if name != "walltime"}

    @property
    def walltime(self) -> float | None:
        """Limit of a try in seconds; None means no limit."""
        return self._task.spec.walltime_s

    @property
    def cached(self) -> bool:
        """Whether its app has ``cache=True``."""
        return self._task.app.cache

    @property
    def ignore_for_cache(self) -> tuple[str, ...]:
        """Names of parameters that do not make two calls different."""
        return self._task.app.identity.ignore

    # -- how far it is

    @property
    def state(self) -> str:
        """Name of its state, as ``future.task_status()``; of the reports that have been taken into account."""
        return self._task.state.name

    @property
    def executor(self) -> str | None:
        """Label of the executor of the current or last try; None before the first."""
        executor = self._task.executor
        return None if executor is None else executor.label

    @property
    def tries(self) -> int:
        """Number of tries made so far, lost ones included."""
        return self._task.tries

    @property
    def failures(self) -> int:
        """Number of tries that failed by themselves, without the one that a retry handler is just asked about."""
        return self._task.spent.failures if self._task.spent is not None else 0

    @property
    def losses(self) -> int:
        """Number of tries that were lost with what ran them."""
        return self._task.spent.losses if self._task.spent is not None else 0

    @property
    def cost(self) -> float:
        """Cost of its failures so far, of ``Config(retries=)``."""
        return self._task.spent.cost if self._task.spent is not None else 0.0

    @property
    def failed_nodes(self) -> tuple[str, ...]:
        """Nodes on which tries failed or were lost, the last few, sorted."""
        return (self._task.spent.nodes or ()) if self._task.spent is not None else ()

    @property
    def started_ns(self) -> int | None:
        """Start of the current try, nanoseconds since 1970 (UTC); None unless it is known to have started."""
        start = self._task.start
        return start[1] if start is not None and start[0] == self._task.key else None

    @property
    def future(self) -> AppFuture[Any]:
        """The future that its call returned."""
        return self._task.future

    def why(self, timeout_s: float = 2.0) -> Explanation:
        """Say why it is not done yet, as its future does."""
        return self._task.future.why(timeout_s)

    def _given(self) -> tuple[tuple[object, ...], dict[str, object]]:
        # Staging replaces Files by local paths for a try: the user's own arguments are those of before.
        details = self._task.details
        if details is not None and details.original is not None:
            return details.original
        return self._task.args, self._task.kwargs

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TaskView) and other._task is self._task

    def __hash__(self) -> int:
        return hash(id(self._task))

    def __str__(self) -> str:
        return str(self._task)

    def __repr__(self) -> str:
        return f"<TaskView {self.tid} {self.app} {self.state}>"


class LiveTasks(Mapping[int, TaskView]):
    """The unfinished tasks of a run by their ids, as they are whenever it is looked at. Any thread.

    To iterate, and to ask for all at once, is of one moment; a task may end between two steps.
    """

    def __init__(self, reactor: Reactor) -> None:
        self._reactor = reactor

    def __getitem__(self, tid: int) -> TaskView:
        task = self._reactor.call(lambda: self._reactor.core.live.get(tid), None)
        if task is None:
            raise KeyError(tid)
        return TaskView(task)

    def __iter__(self) -> Iterator[int]:
        return iter(self._of_now())

    def __len__(self) -> int:
        return len(self._of_now())

    def items(self) -> Any:
        """Return ids and tasks, of one moment."""
        return self._of_now().items()

    def values(self) -> Any:
        """Return the tasks of one moment."""
        return self._of_now().values()

    def __repr__(self) -> str:
        return f"<{len(self)} unfinished tasks>"

    def _of_now(self) -> dict[int, TaskView]:
        nobody: dict[int, TaskView] = {}
        live = self._reactor.core.live
        return self._reactor.call(lambda: {tid: TaskView(task) for tid, task in live.items()}, nobody)
