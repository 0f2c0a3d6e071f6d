"""Calls as the kernel hands them to executors: function, arguments, resources, and the steps around it on the node."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NewType, Protocol

from flow_core.interfaces.container import Container

if TYPE_CHECKING:
    from flow_core.interfaces.snapshot import Snapshot

TryKey = NewType("TryKey", int)
"""Key of one try of a task: an unsigned 64-bit number, unique in the run, never reused (20 bits epoch, 44 counter)."""


@dataclass(frozen=True, slots=True)
class Resources:
    """Resources that one task occupies while it runs.

    Attributes:
        cores: CPU cores, fractions allowed.
        memory_mb: Memory in mebibytes; 0 means not stated.
        gpus: Accelerators, fractions allowed.
        disk_mb: Local disk in mebibytes; 0 means not stated.
        nodes: Nodes of one block over which its ranks are spread.
        ranks_per_node: Most MPI ranks on each of those nodes.
        named: Site-defined resources as (name, amount), sorted by name.
        ranks: MPI ranks altogether; None for a task that is no task of ranks. More than ``nodes`` have room for by
            ``ranks_per_node``: they may be anywhere in one block.
        cores_per_rank: Cores of each rank, fractions allowed; None for one core, or one worker where workers share
            cores.
        gpus_per_rank: Accelerators of each rank, fractions allowed; None for none.
        exclusive: Whether it has its nodes to itself; None for no.
    """

    cores: float = 1.0
    memory_mb: int = 0
    gpus: float = 0.0
    disk_mb: int = 0
    nodes: int = 1
    ranks_per_node: int = 1
    named: tuple[tuple[str, float], ...] = ()
    # Left out of messages where they are None: releases before these fields know no null there.
    ranks: int | None = field(default=None, metadata={"left_out": True})
    cores_per_rank: float | None = field(default=None, metadata={"left_out": True})
    gpus_per_rank: float | None = field(default=None, metadata={"left_out": True})
    exclusive: bool | None = field(default=None, metadata={"left_out": True})


@dataclass(frozen=True, slots=True)
class TaskSpec:
    """The class of a task: everything a scheduler may know of it. Interned: thousands of tasks share one object.

    Attributes:
        resources: What the task occupies.
        priority: Higher runs first; equals run in order of submission.
        running_time_min_s: Never started where less than this many seconds of walltime are left.
        walltime_s: Seconds after which the task is stopped with AppTimeout; None means no limit.
        environment: Variables set for the task, as sorted (name, value) pairs.
        container: Container in which the task runs, if any.
        avoid: Nodes on which it failed before: others come first, as long as there are any. Set by the kernel for
            executors with ``avoids_nodes``.
        warn_before_end_s: Seconds before the end of its block at which it is told of it; None if it is not.
    """

    resources: Resources = Resources()
    priority: int = 0
    running_time_min_s: float = 0.0
    walltime_s: float | None = None
    environment: tuple[tuple[str, str], ...] = ()
    container: Container | None = None
    # Left out of messages where it is None: releases before this field know no null there.
    avoid: tuple[str, ...] | None = field(default=None, metadata={"left_out": True})
    warn_before_end_s: float | None = field(default=None, metadata={"left_out": True})

    @property
    def needed_s(self) -> float:
        """Seconds that its block must have left: its own time, and that before the end in which it saves its work."""
        return self.running_time_min_s + (self.warn_before_end_s or 0.0)


# One object for nearly all tasks, so that schedulers tell by identity that a task asks for nothing special.
DEFAULT_SPEC = TaskSpec()
"""The default class: one slot, no priority, no walltime. The only one that executors may prefetch into pipes."""


@dataclass(frozen=True, slots=True)
class FileProgress:
    """Progress of a file that moves for a task.

    Attributes:
        url: Its name, without password.
        direction: ``in`` or ``out``.
        moved: Bytes that are there.
        total: Bytes of the whole file, -1 where not known.
        speed: Bytes a second, lately.
        since_s: Since when it moves, in seconds before this report.
        done: It moves no more.
    """

    url: str
    direction: str
    moved: int
    total: int = -1
    speed: float = 0.0
    since_s: float = 0.0
    done: bool = False


@dataclass(frozen=True, slots=True)
class FileMoved:
    """A file that was moved for a task, or could not be.

    Attributes:
        url: Its name, without password.
        direction: ``in`` or ``out``.
        path: Where it is on the script's machine.
        size: Bytes of the whole file, of a directory or a pattern of all its files; -1 where not known.
        error: Why it could not be moved; empty where it was.
    """

    url: str
    direction: str
    path: str
    size: int = -1
    error: str = ""


class ScriptFilesSession(Protocol):
    """The files of one try on a node that does not see the script's disk. One thread; ``close`` ends it.

    Attributes:
        root: A directory of the try's own on the node, absolute.
    """

    root: str

    def bring(self, places: Sequence[str], own: Sequence[int]) -> None:
        """Bring what the try is given; ``places`` say where from ``root`` each of what the script declared lies.

        Of those whose numbers are in ``own`` the content is shared with no other try.

        Raises:
            MissingInputs: something is not there on the script's machine.
            StagingError: something cannot be brought.
        """
        ...

    def send(self, files: Sequence[tuple[int, str, str]]) -> None:
        """Send what the try has made, and return when all of it is published on the script's machine.

        Each is the number of what the script declared, its path below that if that is a directory or a pattern, and
        its path here.

        Raises:
            StagingError: something cannot be sent.
        """
        ...

    def close(self) -> None:
        """Remove the directory; stop what still moves. Never raises."""
        ...


class ScriptFiles(Protocol):
    """The way from a node to files of the script's machine, for tasks whose node does not see them."""

    def begin(self) -> ScriptFilesSession | None:
        """Begin with the files of the try that runs; None where the node sees the script's disk itself.

        Raises:
            StagingError: the manager of this node does not answer, or has no directory for it.
        """
        ...


TellFiles = Callable[[Sequence[FileProgress]], None]
"""Takes what a task has to tell of its files while it runs. Any thread; never raises; blocks shortly at most."""


@dataclass(frozen=True, slots=True)
class NodeContext:
    """The place in which a task runs, for its steps.

    Attributes:
        executor: Label of the executor.
        node: Host name of the node.
        worker: Rank of the worker within its manager (0 for threads).
        key: The try's key.
        working_dir: Directory in which relative paths of staged files are meant; None means the current one.
        walltime_s: The task's own limit in seconds, None for no limit. Steps that wait must observe it.
        main_thread: True where the worker can interrupt Python code by a timer signal.
        tell: Reports files that move for long to the script; None where no channel to it exists.
        script_files: The way to files of the script's machine; None where tasks see these themselves.
        directory: Directory of commands, where the task shares its process, and so the current one, with strangers;
            empty for the current one.
    """

    executor: str = ""
    node: str = ""
    worker: int = 0
    key: TryKey = field(default=TryKey(0))
    working_dir: str | None = None
    walltime_s: float | None = None
    main_thread: bool = False
    # Left out of comparisons: contexts are equal where tasks run in the same place.
    tell: TellFiles | None = field(default=None, compare=False, repr=False)
    script_files: ScriptFiles | None = field(default=None, compare=False, repr=False)
    directory: str = ""


class TaskStep(Protocol):
    """Picklable data that runs on the node around the function: bash, staging and checks travel as steps.

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
        snapshot: The function as it was at the call, for all others; None where none was taken, and then the function
            travels as it is when an executor first sees it.
    """

    # Slots and no dataclass: the kernel's task record inherits from this, and there are as many as tasks.
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
