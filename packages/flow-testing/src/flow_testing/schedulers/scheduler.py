"""A batch scheduler in this process, behind the simulated commands of schedulers that cannot be installed.

Its jobs are real processes, each in a session of its own; ``close`` ends them all.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from flow_providers.interfaces.job_state import JobState
from flow_providers.starting import starting
from flow_testing.schedulers.variant import SchedulerVariant

_GRACE_S = 2.0  # seconds between TERM and KILL of a cancelled job; short, since tests wait for it
_SIGNAL_BASE = 128  # as the shells have it: 128 + n after signal n


@dataclass(slots=True)
class Row:
    """One job: its number, the arguments of its submission, and its process once it runs."""

    number: int
    name: str
    script: str
    stdout: str
    stderr: str
    cwd: str
    submitted_at: float
    held: bool = False
    process: subprocess.Popen[bytes] | None = None
    cancelled: bool = False
    state: JobState = JobState.PENDING
    exit_code: int | None = None
    signal: int | None = None
    started_at: float | None = None


class FakeScheduler:
    """The scheduler behind the commands of one test. Thread-safe.

    Args:
        folder: A directory for copies of submitted scripts.
        variant: How it misbehaves.
    """

    def __init__(self, folder: Path, variant: SchedulerVariant) -> None:
        self.folder = folder
        self.variant = variant
        self._lock = Lock()
        self._rows: dict[int, Row] = {}
        self._last = 0
        self._commands: list[str] = []

    @property
    def commands(self) -> list[str]:
        """Names of the commands that were run, in order."""
        with self._lock:
            return list(self._commands)

    def is_away(self, command: str) -> bool:
        """Count a command; return whether it finds the scheduler away."""
        # Outside of the lock: a slow scheduler serves several commands at a time.
        time.sleep(self.variant.slow_s)
        with self._lock:
            self._commands.append(command)
            return bool(self.variant.away_every) and len(self._commands) % self.variant.away_every == 0

    def submit(self, script: str, name: str, stdout: str, stderr: str, cwd: str, held: bool = False) -> Row:
        """Take a job and return its row; it starts at once unless it is held or the quirks say otherwise."""
        with self._lock:
            self._last += 1
            kept = self.folder / f"{self._last}.script"
            # A copy, as schedulers make one: the caller may change or remove the script after the submission.
            kept.write_text(script)
            row = Row(self._last, name, str(kept), stdout, stderr, cwd, time.time(), held)
            # Lost: the caller gets an id that no command knows afterwards.
            if not (self.variant.loses_every and self._last % self.variant.loses_every == 0):
                self._rows[row.number] = row
                self._step(row)
            return row

    def rows(self, numbers: Sequence[int] | None = None, *, forgotten: bool = False) -> list[Row]:
        """Return the jobs that are known, of those asked for; on request also those the queue has forgotten."""
        with self._lock:
            # States are brought up to date when somebody asks: no thread has to run between two commands.
            for row in self._rows.values():
                self._step(row)
            known = [
                row for row in self._rows.values() if forgotten or not (self.variant.forgets and row.state.terminal)
            ]
            return [row for row in known if numbers is None or row.number in numbers]

    def cancel(self, number: int) -> bool:
        """End a job; return whether there was one to end."""
        with self._lock:
            row = self._rows.get(number)
            if row is None:
                return False
            self._step(row)
            if row.state.terminal:
                return False
            row.cancelled = True
            _end(row)
            self._step(row)
            return True

    def close(self) -> None:
        """End all jobs, TERM first and KILL 2 s later, and wait for them. Idempotent."""
        for row in self.rows(forgotten=True):
            self.cancel(row.number)

    def _step(self, row: Row) -> None:
        if row.state.terminal:
            return
        if row.cancelled and row.process is None:
            row.state = JobState.CANCELLED
        elif row.held:
            row.state = JobState.HELD
        elif row.process is None and time.time() - row.submitted_at >= self.variant.starts_late_s:
            _start(row)
        if row.process is not None:
            _look(row, row.process)


def _start(row: Row) -> None:
    with open(row.stdout, "wb") as out, open(row.stderr, "wb") as err, starting():
        row.process = subprocess.Popen(
            ["bash", row.script],
            cwd=row.cwd,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            # A session of its own, so that killpg ends what the script has started, too.
            start_new_session=True,
        )
    row.started_at = time.time()


def _look(row: Row, process: subprocess.Popen[bytes]) -> None:
    code = process.poll()
    if code is None:
        row.state = JobState.RUNNING
        return
    row.signal = -code if code < 0 else None
    row.exit_code = _SIGNAL_BASE - code if code < 0 else code
    done = JobState.COMPLETED if code == 0 else JobState.FAILED
    row.state = JobState.CANCELLED if row.cancelled else done


def _end(row: Row) -> None:
    if row.process is None:
        return
    # KILL in any case: the script may have ended at TERM and what it started not.
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(OSError):
            os.killpg(row.process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            row.process.wait(_GRACE_S)
