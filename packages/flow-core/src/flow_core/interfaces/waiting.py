"""Causes why a task is not done yet, as executors and the kernel give them, and all of one task's together."""

from __future__ import annotations

import time
from dataclasses import dataclass
from enum import StrEnum
from typing import Self


class CauseKind(StrEnum):
    """Kinds of causes that keep a task from being done."""

    DONE = "done"
    """Nothing: the task has ended."""
    DEPENDENCY = "dependency"
    """Futures in its arguments, or those that the body of a join app returned, are not done."""
    SAME_CALL = "same_call"
    """An identical cached call is under way, and gives its result to this one too."""
    PREPARING = "preparing"
    """Its arguments are put together, its key is computed, its executor is chosen: a moment, unless something hangs."""
    STAGING = "staging"
    """Its files are moved."""
    BACK_PRESSURE = "back_pressure"
    """It waits in the script, since enough of its kind are out already."""
    QUEUED = "queued"
    """An executor has it, and other tasks are ahead of it."""
    PRIORITY = "priority"
    """Tasks of higher priority are ahead of it."""
    RESOURCES = "resources"
    """It asks for more than any worker has, or than is free at once."""
    NO_WORKER = "no_worker"
    """Its executor has no worker that would take it."""
    HELD = "held"
    """A node is held: it gets no more tasks, since it fails what others run, or is far slower."""
    BLOCK = "block"
    """A block was asked for and has no worker yet, or could not be had."""
    RETRY = "retry"
    """Tries failed or were lost, and another one is made."""
    RUNNING = "running"
    """It runs."""
    UNKNOWN = "unknown"
    """The thread or process that knows did not answer in time."""


@dataclass(frozen=True, slots=True)
class Cause:
    """One thing that keeps a task from being done.

    Attributes:
        kind: What kind of thing.
        text: A clause for the user, without a full stop.
        tasks: Ids of tasks that it is about; of very many, the first ones.
        since_ns: Since when, int64 ns UTC; None where not known.
    """

    kind: CauseKind
    text: str
    tasks: tuple[int, ...] = ()
    since_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why one task is not done yet. ``str()`` gives plain sentences, ``line`` the same in one line.

    Attributes:
        who: The task, for a reader: ``task 3 (stress)``.
        state: Name of its state.
        causes: All that keeps it from being done; never empty.
        task_id: Its id; None for a future that belongs to no task.
        since_ns: Since when it is in that state, int64 ns UTC; None where that is not known, or a cause has it.
    """

    who: str
    state: str
    causes: tuple[Cause, ...]
    task_id: int | None = None
    since_ns: int | None = None

    @property
    def since(self) -> str:
        """Since when it is in its state, as an addition to that; empty where not known."""
        return "" if self.since_ns is None else f" {since(self.since_ns, time.time_ns())}"

    @property
    def done(self) -> bool:
        """Whether it has ended."""
        return any(cause.kind is CauseKind.DONE for cause in self.causes)

    @property
    def line(self) -> str:
        """The whole in one line."""
        return f"{self._begin}: {'; '.join(cause.text for cause in self.causes)}"

    def __str__(self) -> str:
        return "\n".join([f"{self._begin}:", *(f"- {cause.text}." for cause in self.causes)])

    @property
    def _begin(self) -> str:
        if self.state == "running" and any(cause.kind is CauseKind.NO_WORKER for cause in self.causes):
            return f"{self.who} ran when its node was last heard of"
        return f"{self.who} is {shown_state(self.state)}{self.since}"


class EndedState(str):
    """The name of the state in which a task has ended, with that of its app."""

    app: str

    @classmethod
    def of_app(cls, state: str, app: str) -> Self:
        """Return the name of a state as one that knows the app of its task."""
        named = cls(state)
        named.app = app
        return named


# Internal names that would mislead: "launched" is taken for running, and "exec_done" says less than "done".
_SHOWN = {
    "unsched": "new",
    "launched": "queued",
    "exec_done": "done",
    "memo_done": "done (remembered)",
    "dep_fail": "not run",
    "fail_retryable": "tried again",
}


def shown_state(state: str) -> str:
    """Return a state's name as messages show it: ``launched`` says that an executor has the task, not that it runs."""
    return _SHOWN.get(state, state)


def since(since_ns: int, now_ns: int) -> str:
    """Return a point of time and how long ago that is, such as ``since 12:03:04 (15 s)``; local time."""
    # Never negative: clocks of machines differ, and may be set back.
    ago_s = max(0, now_ns - since_ns) / 1e9
    form = "%H:%M:%S" if ago_s < _DAY_S else "%Y-%m-%d %H:%M"
    return f"since {time.strftime(form, time.localtime(since_ns / 1e9))} ({duration(ago_s)})"


_DAY_S = 86_400  # seconds


def duration(seconds: float) -> str:
    """Return a time in its natural unit: ``15 s``, ``12 min``, ``5.0 h``, ``3.0 d``."""
    # Two of a unit before the next one: "90 s" says more than "1.5 min", and so do minutes and hours.
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 2 * _DAY_S else f"{seconds / _DAY_S:.1f} d"


def count(number: int, one: str, many: str = "") -> str:
    """Return a number with its noun."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def tasks_ahead(number: int) -> str:
    """Return how many tasks of an executor come before one."""
    return "no task is ahead of it" if not number else f"{count(number, 'task is', 'tasks are')} ahead of it"
