"""Failures of a run, counted by app and type of exception, with the first of each, for its views and its record."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flow_core.graph.failures import root_cause
from flow_core.graph.states import State
from flow_core.guard import name_of, one_line

if TYPE_CHECKING:
    from flow_core.graph.task import Task

_MOST_GROUPS = 200  # a bound on memory; failures of further kinds are counted together
_LINE = 300  # characters of an example; a message may hold a whole file
_OTHERS = ("", "others")


@dataclass(slots=True)
class FailureGroup:
    """Failed tasks of one app with one type of exception.

    Attributes:
        app: Name of the app; empty where kinds are counted together since there are too many.
        kind: Name of the exception's type.
        count: Number of tasks.
        first: Id of the first of them.
        text: Its exception, a line.
    """

    app: str
    kind: str
    count: int
    first: int
    text: str


class FailureTally:
    """Counts the tasks that failed themselves; not those that were cancelled, or not run since others failed.

    Any thread. Costs nothing for tasks that end well.
    """

    def __init__(self) -> None:
        self._groups: dict[tuple[str, str], FailureGroup] = {}
        self._lock = threading.Lock()

    def add(self, task: Task) -> None:
        """Count a task that has failed. Calls the text of an exception only for the first of its group."""
        if task.state is not State.failed or task.error is None:
            return
        cause = root_cause(task.error)
        name = task.app.name, name_of(cause)
        with self._lock:
            if name not in self._groups and len(self._groups) >= _MOST_GROUPS:
                name = _OTHERS
            group = self._groups.get(name)
            if group is not None:
                group.count += 1
                return
            group = self._groups[name] = FailureGroup(*name, 1, task.tid, "")
        # Without the lock: the text is the user's exception's own, and may take its time.
        group.text = one_line(cause)[:_LINE]

    def groups(self) -> list[FailureGroup]:
        """Return the groups, the largest first. Any thread."""
        with self._lock:
            found = list(self._groups.values())
        return sorted(found, key=lambda one: (-one.count, one.first))
