"""Runs under a directory: found by number or path, each with its state and its record."""

from __future__ import annotations

import os
import socket
import stat
from dataclasses import dataclass
from pathlib import Path

from flow_core.errors import RunNotLive
from flow_core.kernel.live import is_live
from flow_core.kernel.run_record import RunRecord, read

RUNNING, ENDED, FAILED, KILLED, UNKNOWN = "running", "ended", "failed", "killed", "unknown"
"""States of runs. ``failed``: it ended, and tasks of it failed. ``unknown``: on another host, or of an older Flow."""


@dataclass(frozen=True, slots=True)
class Run:
    """A run's directory with what stands there.

    Attributes:
        path: The directory.
        state: One of the states of this module.
        record: Its record; None where there is none to be read.
    """

    path: Path
    state: str
    record: RunRecord | None

    @property
    def number(self) -> str:
        """Its number, as the directory is called."""
        return self.path.name

    @property
    def live(self) -> bool:
        """Whether its script is there to be asked."""
        return self.state == RUNNING

    @property
    def database(self) -> Path:
        """Where its monitoring database is unless its Config names another: beside its directory."""
        return self.path.absolute().parent / "monitoring.db"

    def has_database(self, named: str | None) -> bool:
        """Return whether its tasks are in a database: the one that is named, or that beside its directory."""
        if named is not None:
            return True
        return self.database.exists() and (self.record is None or self.record.monitored)


def run_at(path: Path) -> Run:
    """Return the run in a directory. Never raises."""
    record = read(path)
    return Run(path, _state(path, record), record)


def runs_under(top: Path) -> list[Run]:
    """Return all runs in a directory of runs, the newest first. Raises RunNotLive: it cannot be read."""
    return [run_at(path) for path in _numbered(top)]


def newest(top: Path, *, live: bool = False) -> Run:
    """Return the newest run, or the newest that goes on.

    Raises:
        RunNotLive: there is none.
    """
    paths = _numbered(top)
    for path in paths:
        if not live or is_live(path):
            return run_at(path)
    if paths:
        raise RunNotLive(
            f"none of the {len(paths)} runs under {top} goes on: name the run, or say where runs are with --run-dir"
        )
    raise RunNotLive(f"there are no runs under {top}: say where runs are with --run-dir")


def is_directory(path: Path) -> bool:
    """Return whether a path is a directory. Raises OSError where that cannot be seen, which Path.is_dir() may hide."""
    try:
        return stat.S_ISDIR(os.stat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


def _numbered(top: Path) -> list[Path]:
    """Return the directories of runs in a directory, the newest first. Raises RunNotLive: it cannot be read."""
    try:
        numbers = (
            [path for path in top.iterdir() if path.name.isdecimal() and is_directory(path)]
            if is_directory(top)
            else []
        )
    except OSError as error:
        raise RunNotLive(f"the runs under {top} cannot be looked at: {error.strerror}") from None
    return sorted(numbers, key=lambda one: int(one.name), reverse=True)


def _state(path: Path, record: RunRecord | None) -> str:
    if record is not None and record.ended_ns is not None:
        return FAILED if record.tasks.get("failed") else ENDED
    if is_live(path):
        return RUNNING
    if record is None or record.host != socket.gethostname():
        return UNKNOWN
    # It may be ending just now, since its socket goes before its record is written; or its disk takes no sockets.
    return RUNNING if _runs_since(record.pid) <= record.began_ns else KILLED


def _runs_since(pid: int) -> float:
    """Return when a process of this machine began, in ns since the epoch; infinity if there is none."""
    try:
        # Its name, in brackets, may hold anything; field 22 is the begin, in ticks since the machine began.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        if fields[0] in ("Z", "X"):  # it is dead, and its parent has not heard of it yet, which may take for ever
            return float("inf")
        lines = Path("/proc/stat").read_text().splitlines()
        booted_s = next(int(line.split()[1]) for line in lines if line.startswith("btime "))
        return (booted_s + int(fields[19]) / os.sysconf("SC_CLK_TCK")) * 1e9
    except (OSError, ValueError, IndexError, StopIteration):
        return float("inf")
