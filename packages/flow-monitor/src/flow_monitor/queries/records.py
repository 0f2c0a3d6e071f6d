"""Records that queries return, frozen. Times are int64 nanoseconds UTC, None where not known."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Generic, TypeVar

T = TypeVar("T")

SILENT_AFTER_NS = 90 * 1_000_000_000
"""Nanoseconds without event or heartbeat after which a run is shown as silent: six heartbeats of 15 s."""


class RunState(Enum):
    """State of a run, from its events and its last sign of life."""

    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    """It ended, and tasks of it failed."""
    DIED = "died"
    """Its process ended without saying so: it was killed."""
    SILENT = "silent"
    """It has not ended, but nothing is heard of it."""


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """A part of a list: its items, their place in the whole, and how long the whole is."""

    items: tuple[T, ...]
    offset: int
    limit: int
    total: int


@dataclass(frozen=True, slots=True)
class Workflow:
    """One run (workflow) as lists and its page show it."""

    run_id: str
    name: str
    state: RunState
    time_began: int | None
    time_completed: int | None
    time_last_event: int | None
    host: str
    user: str
    rundir: str
    script: str
    flow_version: str
    python_version: str
    executors: tuple[str, ...]
    submitted: int
    completed: int
    failed: int
    memoized: int
    cancelled: int
    events_lost: int
    revision: int
    """Grows with everything that is learned of the run."""
    time_heard: int | None = None
    """Time of its last event, or of the last heartbeat of its projection."""

    @property
    def unfinished(self) -> int:
        """Tasks that have not ended."""
        return max(0, self.submitted - self.completed - self.failed - self.cancelled)

    @property
    def duration_ns(self) -> int | None:
        """Duration of the run in nanoseconds, so far where it has not ended."""
        end = self.time_completed or self.time_last_event
        return None if end is None or self.time_began is None else end - self.time_began


@dataclass(frozen=True, slots=True)
class AppSummary:
    """One app of a run. Seconds; ``tasks`` by state."""

    name: str
    kind: str
    tasks: dict[str, int]
    tries: int
    run_time_sum_s: float
    run_time_max_s: float
    cpu_s: float
    max_rss_kb: int

    @property
    def count(self) -> int:
        """Number of tasks of the app, over all states."""
        return sum(self.tasks.values())

    @property
    def run_time_mean_s(self) -> float:
        """Mean run time of a try."""
        return self.run_time_sum_s / self.tries if self.tries else 0.0


@dataclass(frozen=True, slots=True)
class Task:
    """One task, as in lists."""

    task_id: int
    app: str
    kind: str
    label: str
    status: str
    executor: str
    depends: tuple[int, ...]
    depth: int
    tries: int
    fail_count: int
    from_memo: bool
    time_invoked: int | None
    time_running: int | None
    time_returned: int | None
    error: str
    run_time_ns: int | None = None
    """Run time of its ended tries in ns, without the waits between them; of a join task, of its body."""


@dataclass(frozen=True, slots=True)
class Try:
    """One try of a task."""

    try_id: int
    executor: str
    block: str
    host: str
    manager: str
    worker: int | None
    pid: int | None
    time_launched: int | None
    time_running: int | None
    time_returned: int | None
    verdict: str
    error: str
    cpu_user_s: float | None
    cpu_system_s: float | None
    max_rss_kb: int | None
    net_sent: int | None = None
    """Bytes sent over TCP until its last sample; None where it was not sampled."""
    net_received: int | None = None


@dataclass(frozen=True, slots=True)
class StatusChange:
    """A task entered a state."""

    time_ns: int
    status: str
    try_id: int | None


@dataclass(frozen=True, slots=True)
class TaskFile:
    """A file of a task."""

    url: str
    local_path: str
    size: int | None
    digest: str
    error: str
    time_staged: int | None


@dataclass(frozen=True, slots=True)
class FileMove:
    """A file of an unfinished task that has been moving for some seconds, as last reported.

    ``moved`` and ``total`` are bytes, ``total`` None where not known; ``speed`` is in bytes a second.
    """

    url: str
    direction: str
    time_ns: int
    moved: int
    total: int | None
    speed: float

    @property
    def share(self) -> float | None:
        """Part of the file that has moved, from 0 to 1; None where the size is not known."""
        return min(1.0, self.moved / self.total) if self.total else None


@dataclass(frozen=True, slots=True)
class Block:
    """A block with its history of (time, status, reason)."""

    executor: str
    block: str
    job_id: str
    status: str
    reason: str
    time_requested: int | None
    time_changed: int | None
    history: tuple[tuple[int, str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Dependency:
    """A task that another one waits for."""

    task_id: int
    app: str
    status: str


@dataclass(frozen=True, slots=True)
class Waiting:
    """Why a task is not done, as far as events tell."""

    since: int | None
    """Time at which it came into its state, in nanoseconds."""
    dependencies: tuple[Dependency, ...] = ()
    """Tasks that it waits for and that have not ended: of its arguments, or those that a join body returned."""
    dependencies_total: int = 0
    failed: tuple[Dependency, ...] = ()
    """Dependencies that did not end well: it will not be run."""
    executor: str = ""
    """Executor of a queued task."""
    ahead: int = 0
    """Of a queued task: tasks called before it that are queued at its executor, too."""
    ahead_more: bool = False
    """There are more; these were counted."""
    nodes: int = 0
    """Of a queued task: managers of its executor that are connected."""
    workers: int = 0
    blocks: tuple[Block, ...] = ()
    """Of a queued task: blocks of its executor that have not ended and have no manager."""
    blocks_failed: int = 0
    held: tuple[Hold, ...] = ()
    """Of a queued or running task: nodes of its executor that get no tasks."""


@dataclass(frozen=True, slots=True)
class TaskDetail:
    """All that is known of one task."""

    task: Task
    parent: int | None
    waits_for: tuple[int, ...]
    """Tasks a join task waits for since its body returned their futures."""
    dependents: tuple[int, ...]
    dependents_total: int
    stdout: str
    stderr: str
    hashsum: str
    memoize: bool
    fail_cost: float
    traceback: str
    tries: tuple[Try, ...] = ()
    history: tuple[StatusChange, ...] = ()
    inputs: tuple[TaskFile, ...] = ()
    outputs: tuple[TaskFile, ...] = ()
    waiting: Waiting | None = None
    """Why it is not done; None for a task that has ended."""
    moving: tuple[FileMove, ...] = ()
    """Its files that are being moved for some seconds already; none of a task that has ended."""


@dataclass(frozen=True, slots=True)
class GraphTask:
    """A task as a node of the graph."""

    task_id: int
    app: str
    status: str
    depends: tuple[int, ...]
    depth: int
    run_time_s: float
    """Run time of its tries in seconds, without the waits between them; of a join task, of its body."""
    parent: int | None = None
    """The join task that made it."""
    waits_for: tuple[int, ...] = ()
    """Tasks a join task waits for since its body returned their futures."""


@dataclass(frozen=True, slots=True)
class AppGraph:
    """The graph of apps: nodes with their tasks by state, and the number of edges between each two."""

    nodes: tuple[AppSummary, ...]
    edges: tuple[tuple[str, str, int], ...]
    joins: tuple[tuple[str, str, int], ...] = ()
    """Edges from an app of join tasks to an app of tasks that these made or wait for, with the number of tasks."""


@dataclass(frozen=True, slots=True)
class Stage:
    """The tasks of one app at one depth: by state."""

    depth: int
    app: str
    tasks: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Span:
    """A try as a bar of the timeline. ``end`` is None while it runs."""

    task_id: int
    try_id: int
    app: str
    lane: str
    start: int
    end: int | None
    verdict: str


@dataclass(frozen=True, slots=True)
class Usage:
    """Use of resources in a bin of time: means over the bin, summed over what ran in it. Memory in bytes.

    The sum of ``cpu_cores`` times ``width_ns`` over all bins is the CPU time of the tasks.
    """

    time_ns: int
    """Begin of the bin, in nanoseconds UTC."""
    group: str
    cpu_cores: float
    memory: float
    processes: float
    width_ns: int = 0
    """Width of the bin; 0 where the value is of one moment."""


@dataclass(frozen=True, slots=True)
class TaskSample:
    """One sample of one task: CPU time in seconds, memory in bytes; disk and network in bytes since it began.

    Network traffic is None where it is not known.
    """

    time_ns: int
    try_id: int | None
    cpu_percent: float
    cpu_user_s: float
    cpu_system_s: float
    memory: int
    disk_read: int
    disk_write: int
    processes: int
    net_sent: int | None = None
    net_received: int | None = None


@dataclass(frozen=True, slots=True)
class Hold:
    """A node that gets no tasks of an executor."""

    executor: str
    host: str
    reason: str
    since: int | None


@dataclass(frozen=True, slots=True)
class Node:
    """A manager on a node."""

    executor: str
    manager: str
    block: str
    host: str
    pid: int | None
    workers: int
    cpu_count: int
    memory: int
    python_version: str
    time_joined: int | None
    time_left: int | None
    lost: bool
    reason: str
    tries: int = 0
    held: Hold | None = None
    """While it is connected and its node is held: since when, and why."""


@dataclass(frozen=True, slots=True)
class Gap:
    """Number of events that are missing."""

    time_ns: int
    events: int
    reason: str
    time_first: int | None = None
    """Time of the first missing event, where known; ``time_ns`` is that of the last."""
