"""The progress of a run as an event sink: it chooses what to show by where the script runs."""

from __future__ import annotations

import shlex
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from flow.progress.counts import Counts, line, summary
from flow.progress.notebook import Table
from flow.progress.terminal import Bars
from flow_core.errors import ConfigurationError
from flow_core.events import Event, EventKind
from flow_core.interfaces.sinks import RunInfo

_NOTEBOOK_S = 0.5  # seconds between changes of a table in a notebook: each is a message to the browser
_END_S = 2.0  # seconds for the thread to write its last line


class ProgressBar:
    """Shows how many tasks of each app are done, while the run goes on, and how far files are that move for long.

    Put it into ``Config(sinks=[ProgressBar()])``. On a terminal it draws bars, in a notebook a table in the output of
    the cell; elsewhere, as in a batch job or a pipe, it writes a line a minute if something has changed. At the end it
    leaves one line: tasks, failures, and the command that shows them.

    Args:
        console: Where to write; standard error by default, so that results on standard output stay clean.
        every_s: Seconds between lines where there is no terminal; 0 for none but the last.

    Raises:
        ConfigurationError: ``every_s`` is negative.
    """

    wants = EventKind.TASK | EventKind.FILE

    def __init__(self, console: Console | None = None, *, every_s: float = 60.0) -> None:
        if not every_s >= 0:
            raise ConfigurationError(f"ProgressBar: every_s is a number of seconds, 0 or more, not {every_s!r}")
        self._console = console if console is not None else Console(stderr=True)
        self._every_s = every_s
        self._counts = Counts()
        self._bars: Bars | None = None
        self._table: Table | None = None
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None
        self._began = 0.0
        self._run = ""

    def __repr__(self) -> str:
        return "ProgressBar()" if self._every_s == 60.0 else f"ProgressBar(every_s={self._every_s!r})"

    def start(self, run: RunInfo) -> None:
        """Begin to show."""
        self._counts, self._run = Counts(), _argument(run.run_dir)
        self._began = time.monotonic()
        self._closed = threading.Event()
        self._bars = self._table = self._thread = None
        if self._console.is_jupyter:
            self._table = Table()
            self._begin_thread(_NOTEBOOK_S)
        elif self._console.is_terminal:
            self._bars = Bars(self._console)
        elif self._every_s:
            self._begin_thread(self._every_s)

    def emit(self, events: Sequence[Event]) -> None:
        """Count what was submitted and what ended; all drawing is done by threads of its own."""
        with self._lock:
            self._counts.take(events)
            if self._bars is not None:
                self._bars.show(self._counts)

    def close(self, timeout_s: float) -> int:
        """Stop, and leave a line. Nothing of it is durable, so nothing is lost."""
        if not self._run or self._closed.is_set():
            return 0
        self._closed.set()
        if self._thread is not None:
            self._thread.join(min(timeout_s, _END_S))
        if self._bars is not None:
            self._bars.close()
            self._bars = None
        total = self._counts.total
        if total.submitted:
            text = summary(total, time.monotonic() - self._began, self._run)
            if self._table is not None:
                self._table.show(self._counts, text)
            else:
                self._write(text)
        return 0

    # -- the thread, where rich has none of its own

    def _begin_thread(self, every_s: float) -> None:
        given = (every_s, self._closed)
        self._thread = threading.Thread(target=self._tell, args=given, name="flow-progress", daemon=True)
        self._thread.start()

    def _tell(self, every_s: float, closed: threading.Event) -> None:
        last, before = (0, 0), 0.0
        while not closed.wait(every_s):
            with self._lock:
                total = self._counts.total
            elapsed = time.monotonic() - self._began
            seen = (total.submitted, total.ended)
            if seen == last:
                continue
            text = line(total, elapsed, (total.ended - last[1]) / (elapsed - before))
            last, before = seen, elapsed
            if self._table is None:
                self._write(text)
            else:
                with self._lock:
                    self._table.show(self._counts, text)

    def _write(self, text: str) -> None:
        # A pipe without a reader, or a full disk, is no reason to end a run.
        try:
            self._console.print(f"flow: {text}", markup=False, highlight=False, soft_wrap=True)
        except (OSError, ValueError):
            self._closed.set()


def _argument(run_dir: Path) -> str:
    """Return how commands are told of a run: by its number where they look by themselves, else by its path."""
    return run_dir.name if run_dir.absolute().parent == Path("runinfo").absolute() else shlex.quote(str(run_dir))
