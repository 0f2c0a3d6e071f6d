"""Locks by files, for threads and processes alike, also on several nodes."""

from __future__ import annotations

import fcntl
import os
import stat

from flow_core.own_files import NotOwnFile
from flow_staging.transfer.failures import PermanentTransferError
from flow_staging.transfer.retry import Control

# Seconds: flock has no deadline, so it is tried again, seldom enough for a network file system with many waiting.
_POLL_FIRST_S, _POLL_LAST_S = 0.005, 0.25


def locked(path: str, control: Control, mode: int = 0o644) -> tuple[int, int]:
    """Open and lock a file that is made where it is missing; waits until the deadline of ``control``.

    Returns:
        Its descriptor, and its size.

    Raises:
        PermanentTransferError: the deadline passed.
        NotOwnFile: it is another user's, or has another name elsewhere.
        OSError: it cannot be made, or not be locked there.
    """
    pause = _POLL_FIRST_S
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            status = os.fstat(fd)
            # The holder before may have removed the file: the lock of a file without name protects nothing.
            if os.path.samestat(status, os.stat(path)):
                _check_own(path, status)
                return fd, status.st_size
        except (BlockingIOError, FileNotFoundError):
            pass
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)
        try:
            control.pause(pause)
        except PermanentTransferError as error:
            raise PermanentTransferError(f"{error} (another task was fetching the same file)") from error
        pause = min(pause * 2, _POLL_LAST_S)


def _check_own(path: str, status: os.stat_result) -> None:
    """Refuse what another user has made, or can reach by another name; its mode is no matter, since it is no secret."""
    if status.st_uid != os.geteuid():
        raise NotOwnFile(path, f"it belongs to user {status.st_uid}")
    if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
        raise NotOwnFile(path, "it is no plain file of one name")
