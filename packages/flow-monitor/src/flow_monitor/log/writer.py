"""Appends events to the log of a run: the source of truth of monitoring."""

from __future__ import annotations

import errno
import fcntl
import os
import time
import weakref
from collections.abc import Sequence
from mmap import PROT_READ, mmap
from pathlib import Path

from flow_core.interfaces.events import EventsLost
from flow_monitor.errors import LogError
from flow_monitor.log.frames import Look, after_damage, look, pack
from flow_monitor.log.records import Record, header_json, records_json

LOG_NAME = "events.log"
_FRAME_EVENTS = 1024


class LogWriter:
    """One open log. Used by one thread.

    A write that fails never raises: its events are counted, and a record of the gap follows as soon as writing works
    again. A frame that was written in part is cut off.

    Attributes:
        lost: Number of events that are not in the log.
        locked: Whether the log is locked, so that nobody else appends: not so where the file system has no locks.
    """

    def __init__(self, path: Path, run_id: str, epoch: int, *, header: bool = True) -> None:
        """Open the log for appending, make it where it is missing.

        Args:
            header: Write the header now. Else ``write_header`` is to be called before the first ``append``.

        Raises:
            LogError: it cannot be opened, or another process appends to it.
        """
        self.lost = 0
        self.locked = False
        self._gap = 0
        self._reason = ""
        self._path = path
        self._header = pack(header_json(run_id, epoch))
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise LogError(f"cannot open the event log {path}: {error}") from error
        try:
            self._lock()
            self._end = self._cut_torn_tail()
            if header:
                self.write_header()
        except OSError as error:
            os.close(self._fd)
            raise LogError(f"cannot write the event log {path}: {error}") from error
        except LogError:
            os.close(self._fd)
            raise
        _open.add(self)

    def write_header(self) -> None:
        """Write the header, which says how to read what is appended from now on. Raises OSError."""
        self._write(self._header)

    def append(self, events: Sequence[Record]) -> None:
        """Append events, or records of them, in order; never raises."""
        for start in range(0, len(events), _FRAME_EVENTS):
            self._append_frame(events[start : start + _FRAME_EVENTS])

    def close(self) -> int:
        """Write what is known of a gap, close the file; return the number of events lost. Idempotent."""
        if self._fd >= 0:
            if self._gap:
                self._append_frame(())
            self.abandon()
        return self.lost

    def abandon(self) -> None:
        """Close the file. In a forked child the parent's stays open and locked. Idempotent."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def _append_frame(self, events: Sequence[Record]) -> None:
        try:
            frame = pack(records_json(events)) if events else b""
        except (TypeError, ValueError, KeyError, RecursionError) as error:
            self._append_one_by_one(events, error)
            return
        if self._gap:
            frame = pack(records_json([EventsLost(time.time_ns(), self._gap, self._reason)])) + frame
        try:
            self._write(frame)
            self._gap = 0
        except OSError as error:
            self._count(len(events), f"the event log could not be written: {error.strerror or error}")

    def _append_one_by_one(self, events: Sequence[Record], error: Exception) -> None:
        """Find the event that cannot be written as JSON, keep the others."""
        if len(events) == 1:
            name = events[0][0] if isinstance(events[0], tuple) else type(events[0])
            self._count(1, f"an event {getattr(name, '__name__', name)} could not be encoded: {error!r}"[:300])
            return
        for event in events:
            self._append_frame([event])

    def _count(self, events: int, reason: str) -> None:
        self.lost += events
        self._gap += events
        self._reason = reason

    def _write(self, frame: bytes) -> None:
        if self._fd < 0:
            raise OSError(errno.EBADF, "the event log is closed")
        rest = memoryview(frame)
        try:
            while rest:
                rest = rest[os.write(self._fd, rest) :]
        except OSError:
            if len(rest) < len(frame):
                self._cut(self._end)
            raise
        self._end += len(frame)

    def _cut(self, size: int) -> None:
        try:
            os.ftruncate(self._fd, size)
        except OSError:
            self._end = os.lseek(self._fd, 0, os.SEEK_END)  # readers step over the damage

    def _lock(self) -> None:
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.locked = True
        except BlockingIOError as error:
            raise LogError(
                f"{self._path} is being written by another process: give each run its own run_dir"
            ) from error
        except OSError:
            pass  # a file system without locks

    def _cut_torn_tail(self) -> int:
        """Cut off a frame that an earlier writer did not finish; return the size."""
        size = os.lseek(self._fd, 0, os.SEEK_END)
        good = last_whole_frame_end(self._fd, size)
        if good < size:
            os.ftruncate(self._fd, good)
        return good


_open: weakref.WeakSet[LogWriter] = weakref.WeakSet()


def _leave_to_parent() -> None:
    """Close the logs in a forked child: it would keep them locked when the process that writes them is gone."""
    for writer in list(_open):
        writer.abandon()
    _open.clear()


os.register_at_fork(after_in_child=_leave_to_parent)


def last_whole_frame_end(fd: int, size: int) -> int:
    """Return the position behind the last whole frame of an open log of a given size."""
    if size == 0:
        return 0
    good, at = 0, 0
    with mmap(fd, size, prot=PROT_READ) as data:
        while at < size:
            found = look(data, at)
            if found.look is Look.FRAME:
                good = found.end
            at = after_damage(data, at) if found.look is Look.MORE else found.end
    return good
