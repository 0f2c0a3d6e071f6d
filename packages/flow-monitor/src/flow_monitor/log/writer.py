"""The writer of the event log of a run: appends events. The log is the source of truth of monitoring."""

from __future__ import annotations

import errno
import fcntl
import os
import time
import weakref
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from mmap import PROT_READ, mmap
from pathlib import Path

from flow_core.folders import make_directory
from flow_core.interfaces.events import EventsLost
from flow_core.own_files import open_own_to_write
from flow_core.write_remedies import write_remedy
from flow_monitor.errors import LogError
from flow_monitor.log.frames import Look, after_damage, look, pack
from flow_monitor.log.records import Record, header_json, records_json

LOG_NAME = "events.log"
_FRAME_EVENTS = 1024  # events a frame, which damage costs as a whole; only the magnitude matters
KEPT_BYTES = 64 << 20
"""Bytes of frames that wait in memory for room on the disk, at most: some 400 000 events."""
_TRY_AGAIN_S = 0.1  # seconds between tries to write to a full disk, so that no append makes the script slower


@dataclass(frozen=True, slots=True)
class _Gap:
    """Lost events that the log has no record of yet: how many, from when to when (ns), and why."""

    events: int = 0
    first_ns: int = 0
    last_ns: int = 0
    reason: str = ""


class LogWriter:
    """One open log. Used by one thread.

    A write that fails never raises. What could not be written, as on a full disk, is kept in memory and written with
    the next events, or at the end, when there is room; a frame that was written in part is cut off. Events for which
    there is no room in memory either are counted, and a record of the gap follows those before it.

    Attributes:
        path: The log.
        lost: Number of events that are not in the log and will not be.
        lost_from_ns: When the first of them was to be written; 0 where there is none.
        lost_until_ns: When the last was.
        lost_why: Why the last was not.
        locked: Whether the log is locked, so that no other process appends: not so where the file system has no locks.
        failure: Why the last write failed; empty when it did not.
    """

    def __init__(self, path: Path, run_id: str, epoch: int, *, header: bool = True) -> None:
        """Open the log for appending, make it where it is missing.

        Args:
            header: Write the header now. Else ``write_header`` is to be called before the first ``append``.

        Raises:
            LogError: it cannot be opened, or another process appends to it.
        """
        self.path = path
        self.lost = self.lost_from_ns = self.lost_until_ns = 0
        self.lost_why = ""
        self.locked = False
        self.failure = ""
        self._gap = _Gap()
        self._waiting: deque[tuple[bytes, int]] = deque()
        self._waiting_bytes = 0
        self._tried = 0.0
        self._failing_since_ns = 0
        self._header = pack(header_json(run_id, epoch))
        try:
            make_directory(path.parent)
            # Not through a link, nor into a file of another user: whoever may write to the directory could name any
            # file.
            self._fd = open_own_to_write(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        except OSError as error:
            raise LogError(f"cannot open the event log {path}: {_why(error)}") from error
        try:
            # Before the tail is cut: it may be the frame that another writer is just writing.
            self._lock()
            self._end = self._cut_torn_tail()
            if header:
                self.write_header()
        except OSError as error:
            os.close(self._fd)
            raise LogError(f"cannot write the event log {path}: {_why(error)}") from error
        except LogError:
            os.close(self._fd)
            raise
        _open.add(self)

    def write_header(self) -> None:
        """Write the header, which says how to read what is appended from now on. Raises OSError."""
        self._write(self._header)

    @property
    def waiting(self) -> int:
        """Number of events that wait in memory for room on the disk."""
        return sum(events for _, events in self._waiting)

    def append(self, events: Sequence[Record]) -> None:
        """Append events, or records of them, in order; never raises."""
        for start in range(0, len(events), _FRAME_EVENTS):
            self._append_frame(events[start : start + _FRAME_EVENTS])

    def write_waiting(self) -> bool:
        """Write what waits, as much as there is room for; return whether nothing is left. Never raises."""
        self._tried = time.monotonic()
        while self._waiting:
            frame, _ = self._waiting[0]
            try:
                self._write(frame)
            except OSError as error:
                # The begin of the failure is the begin of the gap, if these events are lost in the end.
                if not self.failure:
                    self._failing_since_ns = time.time_ns()
                self.failure = error.strerror or str(error)
                return False
            self._waiting.popleft()
            self._waiting_bytes -= len(frame)
        self.failure = ""
        return True

    def close(self, patience_s: float = 0.0) -> int:
        """Write what waits and what is known of a gap, close the file; return the number of events lost. Idempotent.

        Args:
            patience_s: How long to wait for room on the disk.
        """
        if self._fd >= 0:
            until = time.monotonic() + patience_s
            while not self.write_waiting() and time.monotonic() < until:
                time.sleep(min(_TRY_AGAIN_S, patience_s))
            # Its events are counted first, so that the record of the gap, which is small, includes them.
            self._give_up_waiting()
            self._append_gap()
            self.abandon()
        return self.lost

    def abandon(self) -> None:
        """Close the file. In a forked child the parent's stays open and locked. Idempotent."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def _append_frame(self, events: Sequence[Record]) -> None:
        try:
            frame = pack(records_json(events))
        # One event of a user's own values must not cost the 1023 others of its frame.
        except (TypeError, ValueError, KeyError, RecursionError) as error:
            self._append_one_by_one(events, error)
            return
        if self._fd < 0:
            self._count(len(events), "the event log is closed")
            return
        if self._waiting:
            # Older frames first: the log stays in the order of events.
            if time.monotonic() - self._tried >= _TRY_AGAIN_S:
                self.write_waiting()
            if self._waiting_bytes + len(frame) > KEPT_BYTES:
                self._count(len(events), f"the event log could not be written: {self.failure}")
                return
        self._append_gap()
        self._put(frame, len(events))

    def _append_gap(self) -> None:
        """Append what is known of a gap, where there is one."""
        gap, self._gap = self._gap, _Gap()
        if gap.events:
            told = EventsLost(gap.last_ns, gap.events, gap.reason, gap.first_ns)
            self._put(pack(records_json([told])), 0)

    def _put(self, frame: bytes, events: int) -> None:
        """Write a frame of so many events, or let it wait behind those that do."""
        self._waiting.append((frame, events))
        self._waiting_bytes += len(frame)
        # Behind frames that wait it is not tried: they would fail as well, and the order must stay.
        if len(self._waiting) == 1:
            self.write_waiting()

    def _give_up_waiting(self) -> None:
        """Count what still waits as lost: there was no room for it in time."""
        events = self.waiting
        if events:
            self._count(events, f"the event log could not be written: {self.failure}", self._failing_since_ns)
        self._waiting.clear()
        self._waiting_bytes = 0

    def _append_one_by_one(self, events: Sequence[Record], error: Exception) -> None:
        """Find the event that cannot be written as JSON, keep the others."""
        if len(events) == 1:
            name = events[0][0] if isinstance(events[0], tuple) else type(events[0])
            self._count(1, f"an event {getattr(name, '__name__', name)} could not be encoded: {error!r}"[:300])
            return
        for event in events:
            self._append_frame([event])

    def _count(self, events: int, reason: str, since_ns: int = 0) -> None:
        now = time.time_ns()
        self.lost += events
        self.lost_from_ns = self.lost_from_ns or since_ns or now
        self.lost_until_ns, self.lost_why = now, reason
        self._gap = _Gap(self._gap.events + events, self._gap.first_ns or since_ns or now, now, reason)

    def _write(self, frame: bytes) -> None:
        if self._fd < 0:
            raise OSError(errno.EBADF, "the event log is closed")
        rest = memoryview(frame)
        try:
            while rest:
                rest = rest[os.write(self._fd, rest) :]
        except OSError:
            # Half a frame is cut off, so that the next one is not behind damage.
            if len(rest) < len(frame):
                self._cut(self._end)
            raise
        # Known without asking: O_APPEND and the lock make this process the only writer.
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
            raise LogError(f"{self.path} is being written by another process: give each run its own run_dir") from error
        except OSError:
            pass  # a file system without locks

    def _cut_torn_tail(self) -> int:
        """Cut off a frame that an earlier writer did not finish; return the size."""
        size = os.lseek(self._fd, 0, os.SEEK_END)
        # A killed writer leaves a torn frame; what is appended behind it would be found only after a search.
        good = last_whole_frame_end(self._fd, size)
        if good < size:
            os.ftruncate(self._fd, good)
        return good


def _why(error: OSError) -> str:
    return f"{error.strerror or error}{write_remedy(error)}"


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
    # Mapped, not read: a log of a long run may be larger than memory.
    with mmap(fd, size, prot=PROT_READ) as data:
        while at < size:
            found = look(data, at)
            if found.look is Look.FRAME:
                good = found.end
            # MORE in the midst is damage too: a length that is wrong may reach beyond the end.
            at = after_damage(data, at) if found.look is Look.MORE else found.end
    return good
