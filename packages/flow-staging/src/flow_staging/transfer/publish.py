"""Files in the making: a file appears under its own name only when it is whole."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import secrets
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from flow_staging.transfer.failures import local_failure

_SUFFIX = ".part"
_SLOTS = 16
_CHUNK = 1 << 20
_AT_ONCE = 64 << 20
_FULL = (errno.ENOSPC, errno.EDQUOT)


class Partial:
    """A file being made beside its final place, under a name of its own.

    Used as a context manager by one thread: what was not published is removed at the end. The file is locked while it
    is being made, so what a killed process left behind is told from what another process is making, and taken over by
    the next who makes a file of the same name.

    Attributes:
        final: Where the file goes.
        path: Where it is being made.
        size: Bytes written so far.
    """

    def __init__(self, final: Path) -> None:
        self.final = final
        self.path = final
        self.size = 0
        self._fd = -1

    def __enter__(self) -> Partial:
        """Make the directory and the empty file.

        Raises:
            Refused: the file system does not let us; the message says why.
        """
        try:
            self.final.parent.mkdir(parents=True, exist_ok=True)
            if self.final.is_dir():
                raise IsADirectoryError(21, "Is a directory", str(self.final))
            self._create()
        except OSError as error:
            raise local_failure(error, f"cannot write {self.final}") from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.path != self.final:
            self.path.unlink(missing_ok=True)
        self._close()

    def write(self, data: bytes | memoryview) -> None:
        """Append bytes; raises Refused when the disk is full or the like."""
        view = memoryview(data)
        try:
            while view:
                written = os.write(self._fd, view)
                self.size += written
                view = view[written:]
        except OSError as error:
            raise local_failure(error, f"cannot write {self.final}") from error

    def take(self, source: BinaryIO) -> bool:
        """Append what the system can copy at once from where a file stands; False at its end. Raises OSError."""
        copied = os.copy_file_range(source.fileno(), self._fd, _AT_ONCE)
        self.size += copied
        return copied > 0

    def truncate(self) -> None:
        """Throw away what was written."""
        os.ftruncate(self._fd, 0)
        os.lseek(self._fd, 0, os.SEEK_SET)
        self.size = 0

    def publish(self) -> None:
        """Give the file its name, replacing what was there; raises Refused."""
        try:
            os.close(os.dup(self._fd))  # some file systems report a full disk only when a file is closed
            os.replace(self.path, self.final)
        except OSError as error:
            raise local_failure(error, f"cannot write {self.final}") from error
        self.path = self.final
        self._close()  # only now: an unlocked file under its temporary name would be free for others to take

    def _create(self) -> None:
        prefix = _prefix(self.final)
        for slot in range(_SLOTS):
            path = self.final.with_name(f"{prefix}{slot}{_SUFFIX}")
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
            if _own(fd, path):
                os.ftruncate(fd, 0)
                self._fd, self.path = fd, path
                return
            os.close(fd)
        path = self.final.with_name(f"{prefix}{secrets.token_hex(6)}{_SUFFIX}")
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        self.path = path

    def _close(self) -> None:
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)


def duplicate(source: BinaryIO, part: Partial) -> None:
    """Write the content of an open file into a part, sharing blocks on disk where the file system can.

    Raises:
        Refused: the file system does not let us write.
        OSError: ``source`` cannot be read.
    """
    source.seek(0)
    try:
        while part.take(source):
            pass
    except (OSError, AttributeError) as error:  # another file system, or a system that cannot
        if isinstance(error, OSError) and error.errno in _FULL:
            raise local_failure(error, f"cannot write {part.final}") from error
    if part.size == os.fstat(source.fileno()).st_size:
        return
    source.seek(0)
    part.truncate()
    while chunk := source.read(_CHUNK):
        part.write(chunk)


def _prefix(final: Path) -> str:
    digest = hashlib.blake2b(os.fsencode(final.name), digest_size=6).hexdigest()
    return f".flow-{digest}-"  # of constant length: a long name must not become too long


def _own(fd: int, path: Path) -> bool:
    """Take the lock of a file; False if another has it, or if it is no longer the file of that name."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except OSError:  # taken, just published, or a file system without locks, where a random name is used
        return False
