"""Files that others may have touched are used only if they are the user's own.

A name says nothing of who wrote what is behind it. So a file is opened first, and its owner, kind, links and mode are
asked of the descriptor: nobody can change them between the question and the use.
"""

from __future__ import annotations

import os
import pwd
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

from flow_core.errors import ConfigurationError

_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH


class NotOwnFile(PermissionError):
    """A file is another user's, or others may write to it. ``reason`` says which, without the path."""

    def __init__(self, path: str | os.PathLike[str], reason: str) -> None:
        self.reason = reason
        super().__init__(f"{os.fspath(path)}: {reason}")


def owners(names: Iterable[str | int]) -> frozenset[int]:
    """Return the numbers of users given by name or number.

    Raises:
        ConfigurationError: a name is no user of this machine.
    """
    return frozenset(_owner(name) for name in names)


def _owner(name: str | int) -> int:
    if isinstance(name, int):
        return name
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        raise ConfigurationError(f"{name!r}, whose files are to be trusted, is no user of this machine") from None


def open_own(path: str | os.PathLike[str], trusted: frozenset[int] = frozenset()) -> BinaryIO:
    """Open a file for reading, if it is this user's own or one's of the users trusted. Follows links.

    Raises:
        NotOwnFile: it belongs to somebody else, or others may write to it.
        OSError: it cannot be opened, or is no plain file.
    """
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)  # a pipe would wait for its writer
    try:
        check_own(path, os.fstat(fd), trusted)
        return open(fd, "rb")
    except BaseException:
        os.close(fd)
        raise


def open_own_to_write(path: str | os.PathLike[str], flags: int, mode: int = 0o600) -> int:
    """Open or make a file to write to, and return its descriptor: the user's own, of one name, not through a link.

    Args:
        path: The file. Links among its directories are followed.
        flags: How to open it; ``O_CREAT`` where it may be made.
        mode: Mode of a file that is made, before the umask.

    Raises:
        NotOwnFile: it is a link, has another name elsewhere, belongs to somebody else, or others may write to it.
        OSError: it cannot be opened.
    """
    try:
        fd = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY, mode)
    except OSError:
        if os.path.islink(path):
            raise NotOwnFile(path, "it is a symbolic link, which is not written through: remove it") from None
        raise
    try:
        check_own_to_write(path, os.fstat(fd))
        return fd
    except BaseException:
        os.close(fd)
        raise


def check_own(path: str | os.PathLike[str], status: os.stat_result, trusted: frozenset[int] = frozenset()) -> None:
    """Check the status of an opened file.

    Raises:
        NotOwnFile: it is not the user's own nor one's of the users trusted, or others may write to it.
        OSError: it is no plain file.
    """
    if not stat.S_ISREG(status.st_mode):
        raise NotOwnFile(path, "it is no plain file")
    owner = status.st_uid
    if owner not in trusted and owner != os.geteuid():
        raise NotOwnFile(path, f"it belongs to user {user_name(status.st_uid)}, not to {user_name(os.geteuid())}")
    # Users whose umask is 002 write such files all the time: in a closed directory they are harmless.
    if status.st_mode & _WRITABLE_BY_OTHERS and _others_reach(path, owner):
        mode = stat.S_IMODE(status.st_mode)
        raise NotOwnFile(path, f"others may write to it (mode {mode:o}): chmod go-w {os.fspath(path)}")


def check_own_to_write(path: str | os.PathLike[str], status: os.stat_result) -> None:
    """Check the status of a file that is to be written to.

    Raises:
        NotOwnFile: as ``check_own``; or the file has another name elsewhere.
    """
    check_own(path, status)
    # A link of another user to a file of this one's: to write would change that file.
    if status.st_nlink > 1:
        raise NotOwnFile(path, "it has another name elsewhere (a hard link), which would change too: remove it")


def take_own_directory(path: str | os.PathLike[str]) -> None:
    """Check that a directory is this user's own, and close it to all writers but the owner.

    A user who may add names to a directory decides what is read from it.

    Raises:
        NotOwnFile: it is another user's, or a link of another user, or leads to one's of another user.
        OSError: it is not there.
    """
    # Of the link and of what it leads to: the owner of either decides what is found there.
    status = os.lstat(path)
    owners = {status.st_uid, os.geteuid()}
    if stat.S_ISLNK(status.st_mode):
        status = os.stat(path)
        owners.add(status.st_uid)
    if len(owners) > 1 or not stat.S_ISDIR(status.st_mode):
        raise NotOwnFile(path, "it is no directory of this user's own")
    if status.st_mode & _WRITABLE_BY_OTHERS:  # by a umask that lets the group write
        os.chmod(path, stat.S_IMODE(status.st_mode) & ~_WRITABLE_BY_OTHERS)


def _others_reach(path: str | os.PathLike[str], owner: int) -> bool:
    """Return whether users other than its owner can reach a file: not through a directory that is closed to them."""
    for folder in Path(path).absolute().parents:
        try:
            status = os.stat(folder)
        except OSError:
            return True
        if status.st_uid == owner and not status.st_mode & (stat.S_IXGRP | stat.S_IXOTH):
            return False
    return True


def user_name(uid: int) -> str:
    """Return the name of a user in quotes; the number where it has none."""
    try:
        return repr(pwd.getpwuid(uid).pw_name)
    except KeyError:
        return str(uid)
