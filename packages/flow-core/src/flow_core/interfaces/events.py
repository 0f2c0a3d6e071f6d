"""The events of a run: frozen records, one class a kind. Times are int64 nanoseconds UTC.

The kernel's hot path does not build these: it appends tuples of the class and its fields, from which the pump builds
objects only for sinks that want them. ``record_maker`` gives the one way to make such a tuple, with the parameters of
the class, so that a type checker sees every field.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields
from enum import IntFlag
from functools import cache
from typing import Any, ClassVar, NewType, ParamSpec, cast

from flow_core.interfaces.outcome import Place, Usage
from flow_core.interfaces.sampler import Sample


class EventKind(IntFlag):
    """Kinds of events; a sink wants a union of them."""

    # Powers of two, since a sink wants a union of kinds.
    NONE = 0
    RUN = 1
    """Start and end of the run."""
    TASK = 2
    """A task was submitted, or ended."""
    STATE = 4
    """A task changed its state."""
    TRY = 8
    """A try was launched, started or ended."""
    BLOCK = 16
    """A block changed its state."""
    NODE = 32
    """A manager registered or left, or a node is held or free again."""
    SAMPLE = 64
    """Resource samples."""
    FILE = 128
    """A file was staged, or moves for long."""
    LOG = 256
    """Gaps and notices of the event system itself."""
    # The sum of the kinds above; a new kind adds its bit.
    ALL = 511


@dataclass(frozen=True, slots=True)
class RunStarted:
    """The run began: who runs which script where, with which executors."""

    kind: ClassVar[EventKind] = EventKind.RUN
    time_ns: int
    run_id: str
    epoch: int
    name: str
    script: str
    version: str
    python: str
    host: str
    user: str
    run_dir: str
    executors: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RunEnded:
    """The run ended; counts are of tasks."""

    kind: ClassVar[EventKind] = EventKind.RUN
    time_ns: int
    run_id: str
    completed: int
    failed: int
    memoized: int
    cancelled: int


@dataclass(frozen=True, slots=True)
class TaskSubmitted:
    """An app was called. ``inputs``, ``outputs``, ``stdout`` and ``stderr`` are file names or URLs."""

    kind: ClassVar[EventKind] = EventKind.TASK
    time_ns: int
    task_id: int
    app: str
    app_kind: str
    label: str
    executors: tuple[str, ...]
    depends: tuple[int, ...]
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    stdout: str = ""
    stderr: str = ""
    cache: bool = False
    parent: int | None = None
    """The join task in whose body this one was made, if any."""
    items: tuple[str, ...] = ()
    """What ``inputs=`` holds, in its order, where that is not files and tasks alone: names of files, tasks as
    ``task 3``, plain values as they are written, other objects by their type."""


@dataclass(frozen=True, slots=True)
class TaskChanged:
    """A task entered a state (a State's name) by itself, between tries."""

    kind: ClassVar[EventKind] = EventKind.STATE
    time_ns: int
    task_id: int
    state: str


@dataclass(frozen=True, slots=True)
class TaskJoined:
    """The body of a join app returned futures, perhaps done already; ``waits_for`` are those of tasks of this run."""

    kind: ClassVar[EventKind] = EventKind.TASK
    time_ns: int
    task_id: int
    waits_for: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class TaskEnded:
    """A task reached its final state. ``error`` is the root cause in one line; ``traceback`` the remote one."""

    kind: ClassVar[EventKind] = EventKind.TASK
    time_ns: int
    task_id: int
    state: str
    hashsum: str = ""
    memoized: bool = False
    tries: int = 0
    fail_count: int = 0
    fail_cost: float = 0.0
    error: str = ""
    traceback: str = ""


@dataclass(frozen=True, slots=True)
class TryLaunched:
    """A try was handed to an executor."""

    kind: ClassVar[EventKind] = EventKind.TRY
    time_ns: int
    task_id: int
    try_id: int
    key: int
    executor: str


@dataclass(frozen=True, slots=True)
class TryStarted:
    """A try was reported to run."""

    kind: ClassVar[EventKind] = EventKind.TRY
    time_ns: int
    task_id: int
    try_id: int
    place: Place


@dataclass(frozen=True, slots=True)
class TryEnded:
    """A try ended; ``verdict`` is a Verdict's name."""

    kind: ClassVar[EventKind] = EventKind.TRY
    time_ns: int
    task_id: int
    try_id: int
    verdict: str
    started_ns: int
    ended_ns: int
    executor: str
    place: Place | None
    usage: Usage | None
    error: str = ""


@dataclass(frozen=True, slots=True)
class BlockChanged:
    """A block of an executor changed its state (a JobState's name), with the scheduler's reason."""

    kind: ClassVar[EventKind] = EventKind.BLOCK
    time_ns: int
    executor: str
    block: str
    job_id: str
    state: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class NodeJoined:
    """A manager registered at its interchange, with what its node has; ``memory_bytes`` is that of the node.

    ``sees_run`` tells whether that node sees the run's directory; None where it is not known.
    """

    kind: ClassVar[EventKind] = EventKind.NODE
    time_ns: int
    executor: str
    block: str
    node: str
    manager: str
    pid: int
    workers: int
    cpu_count: int
    memory_bytes: int
    python: str
    sees_run: bool | None = None


@dataclass(frozen=True, slots=True)
class NodeLeft:
    """A manager left or was lost."""

    kind: ClassVar[EventKind] = EventKind.NODE
    time_ns: int
    executor: str
    block: str
    manager: str
    reason: str
    lost: bool


@dataclass(frozen=True, slots=True)
class NodeHeld:
    """A node gets no more tasks of an executor, and why; with an empty reason: it gets them again."""

    kind: ClassVar[EventKind] = EventKind.NODE
    time_ns: int
    executor: str
    node: str
    reason: str


@dataclass(frozen=True, slots=True)
class Sampled:
    """Resource samples of a node's tasks."""

    kind: ClassVar[EventKind] = EventKind.SAMPLE
    time_ns: int
    executor: str
    block: str
    node: str
    manager: str
    samples: tuple[Sample, ...]


@dataclass(frozen=True, slots=True)
class FileStaged:
    """A file of a task was brought in or out.

    ``url`` is without its password, ``size`` in bytes or -1, ``digest`` hexadecimal (its length tells the algorithm: 32
    MD5, 40 SHA-1, 64 SHA-256, 128 SHA-512) or empty where the transfer learnt none.
    """

    kind: ClassVar[EventKind] = EventKind.FILE
    time_ns: int
    task_id: int
    url: str
    local_path: str
    direction: str
    size: int = -1
    digest: str = ""
    error: str = ""


@dataclass(frozen=True, slots=True)
class FileMoving:
    """Progress of a file of a task that moves for some seconds already; posted every few seconds while it goes on.

    ``url`` is without its password; ``moved`` and ``total`` are bytes (-1 where not known), ``speed`` is in bytes
    a second.
    """

    kind: ClassVar[EventKind] = EventKind.FILE
    time_ns: int
    task_id: int
    url: str
    direction: str
    moved: int
    total: int = -1
    speed: float = 0.0


@dataclass(frozen=True, slots=True)
class EventsLost:
    """Events that could not be recorded: how many, why, and when the first of them was; 0 where that is not known."""

    kind: ClassVar[EventKind] = EventKind.LOG
    time_ns: int
    count: int
    reason: str
    since_ns: int = 0


Event = (
    RunStarted
    | RunEnded
    | TaskSubmitted
    | TaskChanged
    | TaskEnded
    | TryLaunched
    | TryStarted
    | TryEnded
    | BlockChanged
    | NodeJoined
    | NodeLeft
    | Sampled
    | FileStaged
    | EventsLost
    | TaskJoined
    | FileMoving
    | NodeHeld
)

EventRecord = NewType("EventRecord", "tuple[object, ...]")
"""An event as a tuple: its class, then its fields in their order. See ``record_maker``."""

# The maker has the parameters of the class, so a type checker finds a wrong or missing field where a record is made.
P = ParamSpec("P")


def record_maker(kind: Callable[P, Event]) -> Callable[P, EventRecord]:
    """Return a function that takes what a class of events takes, and returns the record of such an event.

    The function is made of source, once for each class: a call with keywords costs 0.2 us, an object of the class 1 us.
    """
    return cast("Callable[P, EventRecord]", _maker(kind))


@cache
def _maker(kind: Any) -> Callable[..., Any]:
    # In the order of the fields, which is the order in the record.
    names = [field.name for field in fields(kind)]
    defaults = {f"_{each.name}": each.default for each in fields(kind) if each.default is not MISSING}
    parameters = ", ".join(f"{name}=_{name}" if f"_{name}" in defaults else name for name in names)
    made: dict[str, Any] = {"_kind": kind, **defaults}
    exec(f"def record({parameters}): return (_kind, {', '.join(names)})", made)  # names of fields, and nothing else
    # Kept by the cache above: the source is compiled once for each class.
    function: Callable[..., Any] = made["record"]
    return function
