"""The events of a run: frozen records, one class a kind. Times are int64 nanoseconds UTC.

The kernel's hot path does not build these: it appends tuples, from which the pump builds objects only for sinks that
want them.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntFlag
from typing import ClassVar

from flow_core.interfaces.outcome import Place, Usage
from flow_core.interfaces.sampler import Sample


class EventKind(IntFlag):
    """Kinds of events; a sink wants a union of them."""

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
    """A manager registered or left."""
    SAMPLE = 64
    """Resource samples."""
    FILE = 128
    """A file was staged."""
    LOG = 256
    """Gaps and notices of the event system itself."""
    ALL = 511


@dataclass(frozen=True, slots=True)
class RunStarted:
    """The run began."""

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
    """A manager registered."""

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
)
