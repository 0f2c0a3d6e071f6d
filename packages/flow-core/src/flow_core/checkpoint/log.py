"""Writer of a checkpoint: one append-only file that one process writes.

What ``append`` returned for survives the death of this process at any moment: the bytes are the operating system's. To
survive the death of the machine they must be on the disk too: ``sync`` (see the memoizer for when it is called).
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Sequence
from pathlib import Path

from flow_core.checkpoint.reader import readable_end
from flow_core.checkpoint.record import FILE_NAME, file_header
from flow_core.errors import BadCheckpoint
from flow_core.folders import make_directory
from flow_core.own_files import open_own_to_write
from flow_core.remote.faults import point

_BATCH_BYTES = 4 << 20  # bytes of one write(2): few system calls, and no second copy of very many results in memory


class CheckpointLog:
    """Appends records to ``tasks.log`` in a checkpoint directory; makes both when first needed. Any thread."""

    def __init__(self, directory: str | os.PathLike[str], name: str = FILE_NAME, mode: int = 0o644) -> None:
        """Take the directory, and name and mode of the file; nothing is touched yet."""
        self.directory = Path(directory)
        self.path = self.directory / name
        self._mode = mode
        self._lock = threading.Lock()
        self._fd: int | None = None
        self._end = 0
        self._closed = False
        self._dirty = False
        self._torn = False

    def open(self) -> None:
        """Make the directory and the file unless they are there.

        Raises:
            OSError: that is not possible.
            BadCheckpoint: another process is writing it, or it holds something else.
        """
        with self._lock:
            self._open()

    def append(self, records: Sequence[bytes]) -> list[int]:
        """Write whole records; return the offset of each. All are the operating system's when it returns.

        Raises:
            OSError: writing failed, and the file is as it was before.
            BadCheckpoint: see ``open``; or it is closed.
        """
        with self._lock:
            fd = self._open()
            if self._torn:
                self._cut(fd)
            offsets, at = [], self._end
            for record in records:
                offsets.append(at)
                at += len(record)
            point("checkpoint.before_write")
            try:
                _write_all(fd, records)
            except OSError:
                # Set before the cut is tried: if that fails, too, the next append tries it again.
                self._torn = True
                self._cut(fd)
                raise
            point("checkpoint.after_write")
            self._end = at
            self._dirty = True
            return offsets

    def sync(self) -> None:
        """Bring what was written to the disk. May take long; appending goes on meanwhile. Raises OSError."""
        with self._lock:
            if self._fd is None or not self._dirty:
                return
            # Cleared before the fsync: what is appended meanwhile is written by the next one.
            self._dirty = False
            # A copy of the descriptor, so that fsync, which may take seconds, needs no lock and close() may come in
            # between.
            fd = os.dup(self._fd)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def close(self) -> None:
        """Sync and close; idempotent. Raises OSError."""
        try:
            self.sync()
        finally:
            with self._lock:
                self._closed = True
                if self._fd is not None:
                    os.close(self._fd)
                    self._fd = None

    def _cut(self, fd: int) -> None:
        """Take back what a failed write left, lest it hide all that is written after it."""
        os.ftruncate(fd, self._end)
        self._torn = False

    def _open(self) -> int:
        if self._fd is not None:
            return self._fd
        if self._closed:
            raise BadCheckpoint(f"the checkpoint {self.directory} is closed")
        make_directory(self.directory)
        fd = open_own_to_write(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, self._mode)
        try:
            # Locked before it is read: the tail of another writer looks torn.
            lock_for_writing(fd, self.path)
            self._end = _begin(fd, self.path)
        except BaseException:
            os.close(fd)
            raise
        self._fd = fd
        self._dirty = True
        # A new file is on the disk only when its directory is.
        sync_directory(self.directory)
        return fd


def lock_for_writing(fd: int, path: Path) -> None:
    """Take the writer's lock of a file; it goes with the file descriptor. Raises BadCheckpoint if another has it."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise BadCheckpoint(f"{path} is being written by another run; wait for it to end") from None
    except OSError:
        return  # a file system without locks


def _begin(fd: int, path: Path) -> int:
    """Write the header of a new file, or cut the torn tail of an old one; return where to append."""
    size = os.fstat(fd).st_size
    if size:
        end = readable_end(path)
        # What comes after a torn record could not be read.
        if end < size:
            os.ftruncate(fd, end)
        if end:
            return end
    header = file_header()
    _write_all(fd, [header])
    return len(header)


def _write_all(fd: int, records: Sequence[bytes]) -> None:
    batch: list[bytes] = []
    size = 0
    for record in records:
        batch.append(record)
        size += len(record)
        if size >= _BATCH_BYTES:
            _write(fd, b"".join(batch))
            batch, size = [], 0
    if batch:
        _write(fd, batch[0] if len(batch) == 1 else b"".join(batch))


def _write(fd: int, data: bytes) -> None:
    # write(2) may write less than it was given, and a view takes the rest without a copy.
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def sync_directory(directory: Path) -> None:
    """Bring the names of a directory to the disk, where the file system can."""
    fd = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(fd)
    except OSError:
        pass  # some file systems cannot sync a directory; the file itself is synced
    finally:
        os.close(fd)
