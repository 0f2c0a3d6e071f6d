"""The reader of the event log of a run: also while it is being written, from any position it stopped at before."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from flow_core.interfaces.events import Event
from flow_monitor.errors import LogError
from flow_monitor.log.frames import HEAD_SIZE, MAGIC, Look, after_damage, look
from flow_monitor.log.records import Header, Row, event_of, read_header

_CHUNK = 1 << 20  # bytes a read; only the magnitude matters


@dataclass(frozen=True, slots=True)
class Position:
    """Position in a log, in bytes: ``offset`` of the next frame, and of the header that says how to read it."""

    offset: int = 0
    header: int = 0


@dataclass(frozen=True, slots=True)
class ReadBatch:
    """Some events of a log.

    Attributes:
        rows: Events as rows, in the order written.
        position: Where to go on.
        damaged: Bytes that were skipped since they are no frames.
    """

    rows: list[Row]
    position: Position
    damaged: int

    @property
    def events(self) -> list[Event]:
        """The rows as event objects, made at each access."""
        return [event_of(row) for row in self.rows]


class LogReader:
    """One log opened for reading. Used by one thread; context manager."""

    def __init__(self, path: Path, position: Position = Position()) -> None:
        """Open the log at a position.

        Raises:
            LogError: there is no such log, or it has no header where the position says.
        """
        self._path = path
        self._position = position
        self._header: Header | None = None
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise LogError(f"cannot open the event log {path}: {error.strerror}") from error
        if position.offset:
            try:
                # A run that was resumed by another version has several headers: the last one before the position
                # counts.
                self._header = self._header_at(position.header)
            except LogError:
                os.close(self._fd)
                raise

    @property
    def run_id(self) -> str | None:
        """The run the log belongs to; None before its header was read."""
        return None if self._header is None else self._header.run_id

    @property
    def epoch(self) -> int | None:
        """The epoch of what was read last; None before a header was read."""
        return None if self._header is None else self._header.epoch

    def read(self, max_events: int = 20_000, *, final: bool = False) -> ReadBatch:
        """Return the next events, about as many as asked for; none when there is nothing new yet.

        With ``final`` nothing more is expected to be written: what is no whole frame is damage, not a beginning.

        Raises:
            LogError: the log has no header, or a newer Flow wrote it.
        """
        start, header_at = self._position.offset, self._position.header
        rows: list[Row] = []
        damaged, at, data = 0, 0, b""
        while len(rows) < max_events:
            found = look(data, at)
            if found.look is Look.FRAME:
                # A header is a JSON object, a batch a list.
                if found.payload[:1] == b"{":
                    self._header, header_at = read_header(found.payload), start + at
                else:
                    damaged += self._take(found.payload, rows)
                at = found.end
                continue
            if found.look is Look.DAMAGE and found.end < len(data):
                damaged += found.end - at
                at = found.end
                continue
            more = os.pread(self._fd, _CHUNK, start + len(data))
            if not more:
                # While somebody writes, a frame without its end is one that is being written.
                skip = after_damage(data, at) if final else len(data)
                if skip >= len(data):
                    break
                damaged += skip - at
                at = skip
                continue
            # A file that is something else is refused, not read to its end as damage.
            if start + len(data) == 0 and not more.startswith(MAGIC[: len(more)]):
                raise LogError(f"{self._path} is not an event log of Flow")
            # What was taken is dropped, so that memory holds one frame and one chunk.
            data = data[at:] + more
            start, at = start + at, 0
        self._position = Position(start + at, header_at)
        return ReadBatch(rows, self._position, damaged)

    def unread(self) -> int:
        """Return the number of bytes behind the position."""
        return max(0, os.fstat(self._fd).st_size - self._position.offset)

    def sync(self) -> None:
        """Bring the log to the disk, as far as the file system allows."""
        try:
            os.fsync(self._fd)
        except OSError:
            pass

    def close(self) -> None:
        """Close the log's file descriptor. Idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _take(self, payload: bytes, rows: list[Row]) -> int:
        """Decode a batch; return the number of bytes that were not understood."""
        if self._header is None:
            raise LogError(f"{self._path} is not an event log of Flow: it does not begin with a header")
        try:
            rows.extend(self._header.decode(payload))
        except (ValueError, TypeError, LookupError):
            return len(payload)
        return 0

    def _header_at(self, offset: int) -> Header:
        head = os.pread(self._fd, HEAD_SIZE, offset)
        if len(head) == HEAD_SIZE and head.startswith(MAGIC):
            length = int.from_bytes(head[4:8], "little")
            # The header's own bytes are checked, since a log of the same name may be another run's by now.
            found = look(os.pread(self._fd, HEAD_SIZE + length, offset), 0)
            if found.look is Look.FRAME:
                return read_header(found.payload)
        raise LogError(f"{self._path} has no header at byte {offset}: it is not the log that was read before")

    def __enter__(self) -> LogReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
