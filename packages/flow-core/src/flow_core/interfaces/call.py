"""What the kernel hands to an executor: a call, its resources, and the steps that run around it on the node."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NewType, Protocol

if TYPE_CHECKING:
    from flow_core.interfaces.snapshot import Snapshot

TryKey = NewType("TryKey", int)
"""One try of one task: an unsigned 64-bit number, unique in the run, never reused (20 bits epoch, 44 counter)."""


@dataclass(frozen=True, slots=True)
class Resources:
    """What one task occupies while it runs.

    Attributes:
        cores: CPU cores, fractions allowed.
        memory_mb: Memory in mebibytes; 0 means not stated.
        gpus: Accelerators, fractions allowed.
        disk_mb: Local disk in mebibytes; 0 means not stated.
        nodes: Whole nodes of one block (multi-node tasks).
        ranks_per_node: MPI ranks started on each of those nodes.
        named: Site-defined resources as (name, amount), sorted by name.
    """

    cores: float = 1.0
    memory_mb: int = 0
    gpus: float = 0.0
    disk_mb: int = 0
    nodes: int = 1
    ranks_per_node: int = 1
    named: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class TaskSpec:
    """The class of a task: everything a scheduler may know of it. Interned: thousands of tasks share one object.

    Attributes:
        resources: What the task occupies.
        priority: Higher runs first; equals run in order of submission.
        running_time_min_s: Never started where less than this many seconds of walltime are left.
        walltime_s: Seconds after which the task is stopped with AppTimeout; None means no limit.
        environment: Variables set for the task, as sorted (name, value) pairs.
        container: Image in which the task runs, if any.
    """

    resources: Resources = Resources()
    priority: int = 0
    running_time_min_s: float = 0.0
    walltime_s: float | None = None
    environment: tuple[tuple[str, str], ...] = ()
    container: str | None = None


DEFAULT_SPEC = TaskSpec()
"""The default class: one slot, no priority, no walltime. The only one that executors may prefetch into pipes."""


@dataclass(frozen=True, slots=True)
class NodeContext:
    """Where a task runs, as told to its steps.

    Attributes:
        executor: Label of the executor.
        node: Host name of the node.
        worker: Rank of the worker within its manager (0 for threads).
        key: The try's key.
        working_dir: Directory in which relative paths of staged files are meant; None means the current one.
        walltime_s: The task's own limit in seconds, None for no limit. Steps that wait must observe it.
        main_thread: True where the worker can interrupt Python code by a timer signal.
    """

    executor: str = ""
    node: str = ""
    worker: int = 0
    key: TryKey = field(default=TryKey(0))
    working_dir: str | None = None
    walltime_s: float | None = None
    main_thread: bool = False


class TaskStep(Protocol):
    """Picklable data that runs on the node around the function: the way in which bash, staging and checks travel.

    Steps are nested in the order given: the first is the outermost. A step must call ``inner`` at most once, and
    must not catch exceptions that it does not translate.
    """

    def run(self, inner: Callable[[], object], where: NodeContext) -> object:
        """Run ``inner`` and return its (possibly changed) result. Called once, on the task's own thread."""
        ...


class Call:
    """A function, its resolved arguments, its class and its steps. The kernel's task record is a subclass of this.

    ``args`` and ``kwargs`` hold values only: no futures are left in them. They are never splatted into an interface.

    Attributes:
        func: The function itself, for executors whose tasks share the objects of this process.
        snapshot: The function as it was at the call, for all others; None where nobody took one, and then the function
            travels as it is when an executor first sees it.
    """

    __slots__ = ("args", "func", "kwargs", "snapshot", "spec", "steps")

    func: Callable[..., object]
    args: tuple[object, ...]
    kwargs: dict[str, object]
    spec: TaskSpec
    steps: tuple[TaskStep, ...]
    snapshot: Snapshot | None

    def __init__(
        self,
        func: Callable[..., object],
        args: tuple[object, ...] = (),
        kwargs: dict[str, object] | None = None,
        spec: TaskSpec = DEFAULT_SPEC,
        steps: tuple[TaskStep, ...] = (),
        snapshot: Snapshot | None = None,
    ) -> None:
        self.func = func
        self.args = args
        self.kwargs = {} if kwargs is None else kwargs
        self.spec = spec
        self.steps = steps
        self.snapshot = snapshot
