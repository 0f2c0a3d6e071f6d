"""Numbers of a run's tasks by app, and the files that move, from events. Pure: no clock, no output."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from flow_core.events import Event, FileMoving, FileStaged, TaskEnded, TaskSubmitted
from flow_core.interfaces.waiting import duration

MOST_APPS = 12
"""Apps that are told one by one: what fits in half of a small terminal."""
_OTHERS = "other apps"


@dataclass(slots=True)
class AppCounts:
    """Numbers of tasks of one app.

    Attributes:
        submitted: Called.
        ended: Ended, well or not.
        failed: Ended with an error, or not run since others failed.
        remembered: Ended well without being run.
        retried: Tries beyond the first of each ended task.
    """

    submitted: int = 0
    ended: int = 0
    failed: int = 0
    remembered: int = 0
    retried: int = 0

    @property
    def unfinished(self) -> int:
        """Called, and not ended."""
        return self.submitted - self.ended


class Counts:
    """Counts of a run.

    Attributes:
        apps: By the name of the app, in the order in which they were called first; the last stands for all others
            where there are many.
        files: Files that have been moving for some seconds, by task, URL and direction.
        changed: The apps that the last events have changed.
    """

    def __init__(self) -> None:
        self.apps: dict[str, AppCounts] = {}
        self.files: dict[tuple[int, str, str], FileMoving] = {}
        self.changed: set[str] = set()
        self._app_of: dict[int, str] = {}

    def take(self, events: Iterable[Event]) -> None:
        """Count what was submitted and what ended."""
        self.changed = set()
        for event in events:
            if isinstance(event, TaskSubmitted):
                self._submitted(event)
            elif isinstance(event, TaskEnded):
                self._ended(event)
            elif isinstance(event, FileMoving):
                self.files[event.task_id, event.url, event.direction] = event
            elif isinstance(event, FileStaged):
                self.files.pop((event.task_id, event.url, event.direction), None)

    @property
    def total(self) -> AppCounts:
        """The sums over all apps."""
        found = AppCounts()
        for one in self.apps.values():
            found.submitted += one.submitted
            found.ended += one.ended
            found.failed += one.failed
            found.remembered += one.remembered
            found.retried += one.retried
        return found

    def _submitted(self, event: TaskSubmitted) -> None:
        app = event.app if event.app in self.apps or len(self.apps) < MOST_APPS else _OTHERS
        self.apps.setdefault(app, AppCounts()).submitted += 1
        self._app_of[event.task_id] = app
        self.changed.add(app)

    def _ended(self, event: TaskEnded) -> None:
        app = self._app_of.pop(event.task_id, None)
        if app is not None:
            counts = self.apps[app]
            counts.ended += 1
            counts.failed += bool(event.error)
            counts.remembered += event.memoized
            counts.retried += max(0, event.tries - 1)
            self.changed.add(app)
        if self.files:
            self.files = {name: file for name, file in self.files.items() if name[0] != event.task_id}


def line(counts: AppCounts, elapsed_s: float, per_s: float | None) -> str:
    """Return one line on how far a run is: its numbers, its speed, what is left at that."""
    parts = [f"{counts.ended:,} of {counts.submitted:,} tasks ended"]
    told = ((counts.failed, "failed"), (counts.remembered, "from memory"), (counts.retried, "retries"))
    parts += [f"{number:,} {what}" for number, what in told if number]
    if per_s:
        parts.append(f"{per_s:,.3g} a second")
        if counts.unfinished:
            parts.append(f"{duration(counts.unfinished / per_s)} left at that")
    return f"after {duration(elapsed_s)}: {', '.join(parts)}"


def summary(counts: AppCounts, elapsed_s: float, run: str) -> str:
    """Return the line at the end of a run; of failures with the command that shows them."""
    well = counts.ended - counts.failed
    parts = [f"{well:,} of {counts.submitted:,} tasks went well"]
    told = ((counts.remembered, "of them from memory"), (counts.failed, "failed"), (counts.unfinished, "did not end"))
    parts += [f"{number:,} {what}" for number, what in told if number]
    look = f"; see: flow status {run}" if counts.failed else ""
    return f"in {duration(elapsed_s)} {', '.join(parts)}{look}"
