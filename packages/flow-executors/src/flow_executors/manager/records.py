"""What the manager's core keeps and says: tasks, workers, what to hand out, what else to do, what a death means."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from flow_executors.manager.demand import Demand
from flow_executors.wire.control import ExitCode
from flow_executors.wire.specs import DEFAULT_CLASS

Record = bytes | memoryview
Taken = tuple[int, int, tuple[int, ...]]
"""A worker's rank and pid, and the keys that were read back of what the script had given it."""


@dataclass(slots=True)
class Task:
    """A task of a class of its own, which the manager keeps until it is done."""

    key: int
    class_id: int
    record: Record
    demand: Demand


@dataclass(slots=True)
class Worker:
    """A worker as the core sees it.

    Attributes:
        rank: Its number.
        pid: Its process.
        depth: How many packets its pipe holds.
        held: Keys handed to it and not reported, oldest first; all but the first are surely not started.
        since: When it last took up or finished a task.
        task: The task of a class of its own that it runs, with the devices booked for it.
        doom: Why it is being killed, if it is, and under which key.
        fenced: Keys in its pipe that were cancelled; with True if even when started.
        reported: The key whose start was reported last.
        claimed: Whether the script gives it its tasks, not this manager.
        lent: Those of the keys held that the script has given it.
        moved: Keys that the script gave it and that were read back, until the script says that it knows.
    """

    rank: int
    pid: int
    depth: int
    held: dict[int, None] = field(default_factory=dict)
    since: float = 0.0
    task: Task | None = None
    devices: tuple[str, ...] = ()
    doom: tuple[int, str] | None = None
    fenced: dict[int, bool] = field(default_factory=dict)
    reported: int = -1
    claimed: bool = False
    lent: tuple[int, ...] = ()
    moved: set[int] = field(default_factory=set)


class Handout(NamedTuple):
    """Give a record to a worker. A tuple, since there is one a task."""

    rank: int
    key: int
    record: Record
    class_id: int = DEFAULT_CLASS
    devices: tuple[str, ...] = ()


@dataclass(slots=True)
class Effects:
    """What is to be done besides handing out, gathered since it was last taken."""

    cancelled: list[int] = field(default_factory=list)
    returned: list[tuple[int, int, Record]] = field(default_factory=list)
    """(class id, key, record)"""
    kill: list[int] = field(default_factory=list)
    """ranks"""
    taken: list[Taken] = field(default_factory=list)
    """what the script does not know to be the manager's now"""

    def __bool__(self) -> bool:
        return bool(self.cancelled or self.returned or self.kill or self.taken)


@dataclass(frozen=True, slots=True)
class Fallen:
    """What a worker's death means: the try that ran in it (none if it was idle), and why if that was on purpose.

    ``walltime_s`` is the limit of that try, if it has one.
    """

    keys: tuple[int, ...] = ()
    doom: str = ""
    walltime_s: float | None = None


@dataclass(frozen=True, slots=True)
class Leaving:
    """Why and how the manager leaves: ``code`` is told to the interchange, and the process ends with ``status``."""

    code: ExitCode
    reason: str
    status: int = 0
