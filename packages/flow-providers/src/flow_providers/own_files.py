"""Files of this user's own in places where others may write: opened first, and their owner checked by the descriptor.

A twin of what the core has: neither may import the other.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path


class NotOwnFile(PermissionError):
    """A file is another user's, is a link, or others may write to it."""


def open_own(path: Path, flags: int, mode: int = 0o600) -> int:
    """Open or make a plain file of this user's and return its descriptor: not through a link, of one name only.

    Raises:
        NotOwnFile: it is a link, has another name, belongs to somebody else, or others may write to it.
        OSError: it cannot be opened.
    """
    try:
        # NONBLOCK: a pipe under this name would hold the open up until somebody writes to it.
        fd = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY, mode)
    except OSError:
        if path.is_symlink():
            raise NotOwnFile(f"{path} is a symbolic link, which is not followed: remove it") from None
        raise
    try:
        status = os.fstat(fd)
        # By the descriptor, since a path could lead to another file between check and open. A second name may be in a
        # place where somebody else put it.
        if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
            raise NotOwnFile(f"{path} is no plain file of one name: remove it")
        if status.st_uid != os.geteuid():
            raise NotOwnFile(f"{path} belongs to the user with number {status.st_uid}, not to {os.geteuid()}")
        if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise NotOwnFile(f"others may write to {path} (mode {stat.S_IMODE(status.st_mode):o}): chmod go-w {path}")
        return fd
    except BaseException:
        os.close(fd)
        raise


def is_own(path: Path) -> bool:
    """Whether a file is this user's own, or not there: not another user's, nor a link of another user's."""
    try:
        return path.lstat().st_uid == os.geteuid()
    except OSError:
        return True
