"""A batch scheduler on this machine, for the faces that play the commands of schedulers nobody can install.

Its jobs are real processes. State is a directory, so each command is a process of its own, as with the real ones.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from shlex import quote

from flow_providers.channels.local import LocalChannel
from flow_providers.interfaces.job_state import JobState
from flow_providers.launchers.simple import SimpleLauncher
from flow_providers.local.provider import LocalProvider


@dataclass(frozen=True, slots=True)
class Quirks:
    """How a scheduler misbehaves.

    Attributes:
        slow_s: Seconds each command takes.
        forgets: Ended jobs vanish from the queue at once.
        chatty: Prints lines that are no answer before each answer.
        away_every: Every so many commands say that the scheduler is away; 0: never.
        starts_late_s: Seconds a job waits before it runs.
    """

    slow_s: float = 0.0
    forgets: bool = False
    chatty: bool = False
    away_every: int = 0
    starts_late_s: float = 0.0


@dataclass(slots=True)
class Row:
    """One job: its number, what it was submitted with, and its process's id once it runs."""

    number: int
    name: str
    script: str
    stdout: str
    stderr: str
    cwd: str
    submitted_at: float
    held: bool = False
    process: str = ""
    cancelled: bool = False
    state: JobState = JobState.PENDING
    exit_code: int | None = None
    signal: int | None = None
    started_at: float | None = None


class FakeScheduler:
    """The scheduler; all commands of one test share its directory."""

    def __init__(self, folder: str, quirks: Quirks = Quirks()) -> None:  # frozen
        self.folder = Path(folder)
        self.quirks = quirks
        self._provider = LocalProvider(
            channel=LocalChannel(userhome=folder, script_dir=f"{folder}/jobs"), launcher=SimpleLauncher()
        )

    def is_away(self) -> bool:
        """Count this command; return whether it finds the scheduler away."""
        time.sleep(self.quirks.slow_s)
        with self._state() as state:
            state["commands"] = state.get("commands", 0) + 1
            return bool(self.quirks.away_every) and state["commands"] % self.quirks.away_every == 0

    def submit(self, script: str, name: str, stdout: str, stderr: str, held: bool = False) -> Row:
        """Take a job; it runs when somebody next looks."""
        with self._state() as state:
            number = state["last"] = state.get("last", 0) + 1
            kept = self.folder / f"{number}.script"
            kept.write_text(script)
            row = Row(number, name, str(kept), stdout, stderr, os.getcwd(), time.time(), held)
            state.setdefault("rows", {})[str(number)] = _packed(row)
        self.rows()
        return row

    def rows(self, numbers: list[int] | None = None, *, forgotten: bool = False) -> list[Row]:
        """Return the jobs that are known, of those asked for; on request also those the queue has forgotten."""
        with self._state() as state:
            rows = [_unpacked(packed) for packed in state.get("rows", {}).values()]
            for row in rows:
                self._step(row)
                state["rows"][str(row.number)] = _packed(row)
        known = [row for row in rows if forgotten or not (self.quirks.forgets and row.state.terminal)]
        return [row for row in known if numbers is None or row.number in numbers]

    def cancel(self, number: int) -> bool:
        """End a job; return whether there was one to end."""
        with self._state() as state:
            packed = state.get("rows", {}).get(str(number))
            if packed is None:
                return False
            row = _unpacked(packed)
            self._step(row)
            if row.state.terminal:
                return False
            row.cancelled = True
            if row.process:
                self._provider.cancel([row.process])
            self._step(row)
            state["rows"][str(number)] = _packed(row)
            return True

    def _step(self, row: Row) -> None:
        if row.state.terminal:
            return
        if row.cancelled and not row.process:
            row.state = JobState.CANCELLED
        elif row.held:
            row.state = JobState.HELD
        elif not row.process and time.time() - row.submitted_at >= self.quirks.starts_late_s:
            command = f"cd {quote(row.cwd)} && bash {quote(row.script)} >{quote(row.stdout)} 2>{quote(row.stderr)}"
            row.process = self._provider.submit(command, 1)
        if row.process:
            status = self._provider.status([row.process])[0]
            row.state, row.exit_code, row.signal = status.state, status.exit_code, status.signal
            row.started_at = status.started_at

    @contextmanager
    def _state(self) -> Iterator[dict]:  # type: ignore[type-arg]  # JSON, private to this class
        path = self.folder / "state.json"
        with open(self.folder / "lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            state = json.loads(path.read_text()) if path.exists() else {}
            yield state
            path.write_text(json.dumps(state))


def _packed(row: Row) -> dict[str, object]:
    return {**asdict(row), "state": row.state.name}


def _unpacked(packed: dict[str, object]) -> Row:
    return Row(**{**packed, "state": JobState[str(packed["state"])]})  # type: ignore[arg-type]  # its own output
