"""A progress bar on the terminal: an event sink like any other."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from flow_core.events import Event, EventKind, FileMoving, FileStaged, TaskEnded, TaskSubmitted
from flow_core.interfaces.sinks import RunInfo

_MOST_ROWS = 12  # apps with a bar of their own: what fits in half of a small terminal


class ProgressBar:
    """Shows how many tasks of each app are done, while the run goes on, and how far files are that move for long.

    Put it into ``Config(sinks=[ProgressBar()])``. It draws on a terminal only: in a batch job or a pipe it is silent.

    Args:
        console: Where to draw; standard error by default, so that results on standard output stay clean.
    """

    wants = EventKind.TASK | EventKind.FILE

    def __init__(self, console: Console | None = None) -> None:
        self._console = console if console is not None else Console(stderr=True)
        self._progress: Progress | None = None
        self._rows: dict[str, TaskID] = {}
        self._row_of_task: dict[int, TaskID] = {}
        self._failed: dict[TaskID, int] = {}
        self._files: dict[tuple[int, str, str], FileMoving] = {}
        self._files_row: TaskID | None = None

    def __repr__(self) -> str:
        return "ProgressBar()"

    def start(self, run: RunInfo) -> None:
        """Begin to draw, if there is a terminal."""
        self._rows.clear()
        self._row_of_task.clear()
        self._failed.clear()
        self._files.clear()
        self._files_row = None
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
            if isinstance(event, FileMoving):
                self._files[event.task_id, event.url, event.direction] = event
            elif isinstance(event, FileStaged):
                self._files.pop((event.task_id, event.url, event.direction), None)
            elif isinstance(event, TaskEnded) and self._files:
                self._files = {name: file for name, file in self._files.items() if name[0] != event.task_id}
        for row in added.keys() | ended.keys():
            failures = self._failed.get(row, 0)
            progress.update(
                row,
                total=(progress.tasks[row].total or 0) + added.get(row, 0),
                advance=ended.get(row, 0),
                failures=f"{failures} failed" if failures else "",
            )

        if self._files or self._files_row is not None:
            self._show_files(progress)

    def _show_files(self, progress: Progress) -> None:
        """Draw all files that move in one row, in megabytes; without a total while the size of one is not known."""
        files = self._files.values()
        if self._files_row is None:
            self._files_row = progress.add_task("", total=0, failures="")
        moved = sum(one.moved for one in files)
        known = all(one.total >= 0 for one in files)
        speed = sum(one.speed for one in files)
        progress.update(
            self._files_row,
            description=f"MB of {len(files)} file{'' if len(files) == 1 else 's'}, {speed / 1e6:,.1f} MB/s",
            completed=moved // 1_000_000,
            visible=bool(files),
        )
        # Not by update(), which takes None for no change. Without a total the bar shows that something moves.
        row = next(one for one in progress.tasks if one.id == self._files_row)
        row.total = sum(max(one.total, one.moved) for one in files) // 1_000_000 if known else None

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
