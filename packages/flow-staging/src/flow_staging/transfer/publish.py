"""Publication of files: a file is made under a temporary name and renamed when it is whole."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import secrets
import stat
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from flow_core.remote.staged import of_a_task
from flow_staging.transfer.failures import local_failure

_SUFFIX = ".part"
_SLOTS = 16  # fixed names for one file, so that what killed processes left is found again; then a random one
_CHUNK = 1 << 20  # bytes a read where the system cannot copy itself
_AT_ONCE = 64 << 20  # bytes a call of copy_file_range; only the magnitude matters
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
        self.path: str | os.PathLike[str] = final
        self.size = 0
        self._fd = -1

    def __enter__(self) -> Partial:
        """Make the directory and the empty file.

        Raises:
            PermanentTransferError: the file system does not let us; the message says why.
        """
        try:
            if os.path.isdir(self.final):
                raise IsADirectoryError(21, "Is a directory", str(self.final))
            try:
                self._create()
            except FileNotFoundError:
                os.makedirs(self.final.parent, exist_ok=True)
                self._create()
        except OSError as error:
            raise local_failure(error, f"cannot write {self.final}") from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.path is not self.final:
            with contextlib.suppress(OSError):
                # Removed before its lock goes: else another one could have taken it over.
                os.unlink(self.path)
        self._close()

    def write(self, data: bytes | memoryview) -> None:
        """Append bytes; raises PermanentTransferError when the disk is full or the like."""
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

    def executable_as(self, source: BinaryIO) -> None:
        """Let those execute the file who may execute an open one. Raises OSError."""
        bits = os.fstat(source.fileno()).st_mode & 0o111
        if bits:
            os.fchmod(self._fd, stat.S_IMODE(os.fstat(self._fd).st_mode) | bits)

    def truncate(self) -> None:
        """Throw away what was written."""
        if not self.size:
            return
        os.ftruncate(self._fd, 0)
        os.lseek(self._fd, 0, os.SEEK_SET)
        self.size = 0

    def publish(self) -> None:
        """Give the file its name, replacing what was there; raises PermanentTransferError."""
        try:
            os.close(os.dup(self._fd))  # some file systems report a full disk only when a file is closed
            os.replace(self.path, self.final)
        except OSError as error:
            raise local_failure(error, f"cannot write {self.final}") from error
        self.path = self.final
        self._close()  # only now: an unlocked file under its temporary name would be free for others to take

    def _create(self) -> None:
        folder, prefix = self.final.parent, _prefix(self.final)
        for slot in range(_SLOTS):
            path = folder / f"{prefix}{slot}{_SUFFIX}"
            fd = _made(path)
            if fd < 0:  # there already: left by a killed process, or of one that lives, or another user's
                _remove_left_over(path)
                fd = _made(path)
            if fd < 0:
                continue
            if _own(fd, path):
                self._fd, self.path = fd, path
                return
            os.close(fd)
        path = folder / f"{prefix}{secrets.token_hex(6)}{_SUFFIX}"
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _mode(path))
        self.path = path

    def _close(self) -> None:
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)


def _mode(path: Path) -> int:
    """Return the mode of a file: inputs of tasks are writable by their owner only, outputs follow the umask."""
    return 0o644 if of_a_task(path) else 0o666


def duplicate(source: BinaryIO, part: Partial) -> None:
    """Write the content of an open file into a part, sharing blocks on disk where the file system can.

    Raises:
        PermanentTransferError: the file system does not let us write.
        OSError: ``source`` cannot be read.
    """
    source.seek(0)
    part.executable_as(source)
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


def _made(path: Path) -> int:
    """Make an empty file that no other process can have open, and open it; -1 if something is there. Raises OSError."""
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _mode(path))
    except FileExistsError:
        return -1


def _remove_left_over(path: Path) -> None:
    """Remove what a killed process of this user has left; what others have put there is left alone."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NOCTTY)
    except OSError:
        return
    try:
        if os.fstat(fd).st_uid == os.geteuid() and _own(fd, path):
            path.unlink()
    except OSError:
        pass
    finally:
        os.close(fd)


def _own(fd: int, path: Path) -> bool:
    """Take the lock of a file; False if another has it, or if it is no longer the file of that name."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except OSError:  # taken, just published, or a file system without locks, where a random name is used
        return False
