"""A progress bar on the terminal: an event sink like any other."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from flow_core.events import Event, EventKind, TaskEnded, TaskSubmitted
from flow_core.interfaces.sinks import RunInfo

_MOST_ROWS = 12


class ProgressBar:
    """Shows how many tasks of each app are done, while the run goes on.

    Put it into ``Config(sinks=[ProgressBar()])``. It draws on a terminal only: in a batch job or a pipe it is silent.

    Args:
        console: Where to draw; standard error by default, so that results on standard output stay clean.
    """

    wants = EventKind.TASK

    def __init__(self, console: Console | None = None) -> None:
        self._console = console if console is not None else Console(stderr=True)
        self._progress: Progress | None = None
        self._rows: dict[str, TaskID] = {}
        self._row_of_task: dict[int, TaskID] = {}
        self._failed: dict[TaskID, int] = {}

    def __repr__(self) -> str:
        return "ProgressBar()"

    def start(self, run: RunInfo) -> None:
        """Begin to draw, if there is a terminal."""
        self._rows.clear()
        self._row_of_task.clear()
        self._failed.clear()
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[failures]}", style="red"),
            TimeElapsedColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
            transient=True,
        )
        self._progress.start()

    def emit(self, events: Sequence[Event]) -> None:
        """Count what was submitted and what ended; the drawing is done by a thread of its own."""
        progress = self._progress
        if progress is None:
            return
        added: dict[TaskID, int] = {}
        ended: dict[TaskID, int] = {}
        for event in events:
            if isinstance(event, TaskSubmitted):
                row = self._row(progress, event.app)
                self._row_of_task[event.task_id] = row
                added[row] = added.get(row, 0) + 1
            elif isinstance(event, TaskEnded) and event.task_id in self._row_of_task:
                row = self._row_of_task.pop(event.task_id)
                ended[row] = ended.get(row, 0) + 1
                if event.error:
                    self._failed[row] = self._failed.get(row, 0) + 1
        for row in added.keys() | ended.keys():
            failures = self._failed.get(row, 0)
            progress.update(
                row,
                total=(progress.tasks[row].total or 0) + added.get(row, 0),
                advance=ended.get(row, 0),
                failures=f"{failures} failed" if failures else "",
            )

    def close(self, timeout_s: float) -> int:
        """Stop drawing. Nothing of a progress bar is durable, so nothing is lost."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None
        return 0

    def _row(self, progress: Progress, app: str) -> TaskID:
        if app not in self._rows and len(self._rows) >= _MOST_ROWS:
            app = "other apps"
        if app not in self._rows:
            self._rows[app] = progress.add_task(app, total=0, failures="")
        return self._rows[app]
