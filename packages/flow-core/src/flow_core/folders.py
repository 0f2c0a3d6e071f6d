"""Directories and files to which nobody else may write, whatever the umask says. Standard library only.

Many users' umask is 002, and their group a whole project: who may add names to a directory of a run decides what is in
the files that are read from there, job scripts among them.

``flow_core`` and ``flow_providers``, neither of which may import the other, have one such module each, word for word.
"""

from __future__ import annotations

import errno
import os
import stat

READ_BY_ALL = 0o755
"""Others may look into it as far as the umask, and the directories above, let them."""


def make_directory(path: str | os.PathLike[str], mode: int = READ_BY_ALL) -> None:
    """Make a directory, and those above it that are missing. One that is there stays as it is.

    Args:
        path: The directory.
        mode: Who may do what with it, less what the umask takes away. Those above get ``READ_BY_ALL``.

    Raises:
        OSError: it cannot be made, or something else is there.
    """
    whole = os.path.abspath(path)
    try:
        _make(whole, mode)
    except FileNotFoundError:
        make_directory(os.path.dirname(whole))
        _make(whole, mode)


def _make(whole: str, mode: int) -> None:
    """Make a directory in one that is there."""
    try:
        os.mkdir(whole, mode)
    except OSError:
        if not os.path.isdir(whole):  # some file systems have other errors for what is there
            raise


def closed_to_writers(path: str, flags: int) -> int:
    """Open a file; one that is made cannot be written to by others. For ``open(..., opener=...)``. Raises OSError."""
    return os.open(path, flags, 0o644)


def plain_file(path: str, flags: int) -> int:
    """Open a plain file, and nothing that would wait for its other end. For ``open(..., opener=...)``.

    Raises:
        OSError: it cannot be opened, or is a pipe or a device.
    """
    fd = os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY)
    kind = os.fstat(fd).st_mode
    if stat.S_ISREG(kind):
        return fd
    os.close(fd)
    if stat.S_ISDIR(kind):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    raise OSError(errno.EINVAL, "it is no plain file", path)


def current_directory(otherwise: str = "") -> str:
    """Return the current directory; ``otherwise`` where it was removed."""
    try:
        return os.getcwd()
    except OSError:
        return otherwise
