"""Progress as bars on a terminal: one an app, and one for files that move for long."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from flow.progress.counts import Counts

_NUMBERS = 42  # columns for the numbers of tasks, failures, the time and what is between them


class Bars:
    """Bars on a terminal, drawn by a thread of rich's own; they go when they are closed."""

    def __init__(self, console: Console) -> None:
        # Names of apps may be of any length, and rich takes the room for a long one from the numbers.
        self._longest = max(10, min(40, console.width // 3))
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(max(4, min(40, console.width - self._longest - _NUMBERS))),
            MofNCompleteColumn(),
            TextColumn("{task.fields[failures]}", style="red"),
            TimeElapsedColumn(),
            console=console,
            transient=True,
        )
        self._rows: dict[str, TaskID] = {}
        self._files_row: TaskID | None = None
        self.progress.start()

    def show(self, counts: Counts) -> None:
        """Draw what has changed."""
        for app in counts.changed:
            if app not in self._rows:
                self._rows[app] = self.progress.add_task(self._name(app), total=0, failures="")
            one = counts.apps[app]
            failures = f"{one.failed} failed" if one.failed else ""
            self.progress.update(self._rows[app], total=one.submitted, completed=one.ended, failures=failures)
        if counts.files or self._files_row is not None:
            self._show_files(counts)

    def close(self) -> None:
        """Take the bars away."""
        self.progress.stop()

    def _name(self, app: str) -> str:
        return app if len(app) <= self._longest else f"{app[: self._longest - 1]}…"

    def _show_files(self, counts: Counts) -> None:
        """Draw all files that move in one row, in megabytes; without a total while the size of one is not known."""
        files = counts.files.values()
        if self._files_row is None:
            self._files_row = self.progress.add_task("", total=0, failures="")
        moved = sum(one.moved for one in files)
        known = all(one.total >= 0 for one in files)
        speed = sum(one.speed for one in files)
        self.progress.update(
            self._files_row,
            description=f"MB of {len(files)} file{'' if len(files) == 1 else 's'}, {speed / 1e6:,.1f} MB/s",
            completed=moved // 1_000_000,
            visible=bool(files),
        )
        # Not by update(), which takes None for no change. Without a total the bar shows that something moves.
        row = next(one for one in self.progress.tasks if one.id == self._files_row)
        row.total = sum(max(one.total, one.moved) for one in files) // 1_000_000 if known else None
