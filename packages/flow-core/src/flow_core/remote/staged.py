"""Directories of tasks for staged files: each claimed, on the disk on which it is, by the process that uses it.

They lie in a reserved directory of the user's own, ``.flow-staged-UID`` in the working directory. What lies directly in
that has a lock file beside it, held by the process that made it, so that what a killed process left is told from what
another uses, and removed by the next of the same machine.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from flow_core.errors import AppException
from flow_core.folders import make_directory
from flow_core.interfaces.call import NodeContext

_RESERVED = ".flow-staged-"
_SOMEWHERE = f"/{_RESERVED}"
_MADE = ".flow-made-"
"""Name of the file that says how many directories were made for a reserved one: that in which it lies, and above."""
_LOCK = ".lock"
_TRIES = 20  # attempts; each fails only if another process removes the reserved directory at that moment
# By reserved directory; one look a process is enough, since later leftovers are for the next process.
_swept: set[str] = set()


def reserved(directory: str) -> str:
    """Return the directory below another in which this user's tasks have theirs."""
    return os.path.join(directory, f"{_RESERVED}{os.getuid()}")


def home_of(path: Path) -> Path:
    """Return the directory to which a staged file belongs, whatever task it is of: that of its reserved directory.

    A file that lies in none, such as one whose place the user has chosen, belongs to the directory that it is in.
    """
    for above in path.parents:
        if above.name.startswith(_RESERVED):
            return above.parent
    return path.parent


def of_a_task(path: str | os.PathLike[str]) -> bool:
    """Tell whether a path is that of a file in the directory of a task."""
    text = os.fspath(path)
    # Text and no pathlib: this is asked for each file of each task.
    at = text.find(_SOMEWHERE)
    if at >= 0 and "/" in text[at + 1 :].rstrip("/"):  # as a rule, for each file of each task
        return True
    return _RESERVED in text and any(name.startswith(_RESERVED) for name in text.rstrip("/").split("/")[:-1])


class ForeignDirectory(PermissionError):
    """The reserved directory of this user was made by another user, who could change all that is put there."""


class Claim:
    """A directory in a reserved one that is this process's own until it is released. Any thread.

    Attributes:
        path: The directory, absolute.
    """

    def __init__(self, path: str, lock: int) -> None:
        self.path = path
        self._lock = lock

    def release(self) -> None:
        """Remove the directory with all that is in it, and the reserved one if nothing is left there. Never raises."""
        lock, self._lock = self._lock, -1
        if lock < 0:
            return
        # The lock goes last, so that nobody takes the directory for a dead owner's while it is being removed.
        remove(self.path)
        _unlink(self.path + _LOCK)
        os.close(lock)
        _leave(os.path.dirname(self.path))


def _leave(folder: str) -> None:
    """Remove a reserved directory if nothing is left in it, and what ``claim_alone`` has made above it."""
    try:
        os.rmdir(folder)
    except OSError:
        return
    above = os.path.dirname(folder)
    try:
        with open(os.path.join(above, f"{_MADE}{os.getuid()}"), opener=_no_link) as mark:
            own = os.fstat(mark.fileno()).st_uid == os.geteuid()
            levels = min(int(mark.read(8)), above.count("/")) if own else 0
        os.unlink(mark.name)
        for _ in range(levels):
            os.rmdir(above)
            above = os.path.dirname(above)
    except (OSError, ValueError):  # it was there before, or somebody has put something into it
        pass


def _no_link(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def claim_alone(path: str) -> Claim:
    """Claim a directory, and note which of those above the reserved one were not there: they go with the last claim.

    Raises as ``claim``.
    """
    folder = os.path.dirname(os.path.abspath(path))
    base = above = os.path.dirname(folder)
    levels = 0
    while not os.path.lexists(above):
        above, levels = os.path.dirname(above), levels + 1
    if levels:
        make_directory(base)
        with open(os.path.join(base, f"{_MADE}{os.getuid()}"), "w", opener=_no_link) as mark:
            mark.write(str(levels))
    return claim(path)


def claim(path: str) -> Claim:
    """Make a directory directly in a reserved one and hold its lock. What a dead owner left of that name is removed.

    The first claim of a process in a reserved directory removes all that dead processes of this machine have left.

    Raises:
        FileExistsError: it belongs to a process that lives.
        ForeignDirectory: the reserved one is another user's, or a link.
        OSError: it cannot be made.
    """
    path = os.path.abspath(path)
    folder = os.path.dirname(path)
    make_directory(folder)
    _check_own(folder)
    if folder not in _swept:
        _swept.add(folder)
        sweep(folder)
    for _ in range(_TRIES):
        lock = _locked(path + _LOCK)
        if lock is None:
            make_directory(folder)  # another process has finished there and removed it
            continue
        try:
            # A lock file with something in it is an earlier owner's, who is dead since the lock is free.
            if os.fstat(lock).st_size:
                remove(path)
            else:
                os.write(lock, _host())
            make_directory(path)
        except BaseException:
            os.close(lock)
            raise
        return Claim(path, lock)
    raise OSError(errno.EBUSY, "cannot be locked", path)


def release_of_another(path: str) -> None:
    """Remove a claimed directory whose owner has ended, if it is there. Never raises."""
    if os.path.lexists(path) or os.path.lexists(path + _LOCK):
        remove(path)
        _unlink(path + _LOCK)
        _leave(os.path.dirname(path))


def _check_own(folder: str) -> None:
    status = os.lstat(folder)
    if status.st_uid != os.geteuid() or not stat.S_ISDIR(status.st_mode):
        raise ForeignDirectory(
            errno.EACCES,
            "another user has made it, or it is a link, so the files of tasks would not be safe there: have it "
            "removed, or use another working_dir (without one: another run_dir)",
            folder,
        )


def _locked(path: str) -> int | None:
    """Return a lock file, open and locked; None if it was removed meanwhile.

    Raises:
        FileExistsError: a process that lives holds it.
        OSError: it cannot be made.
    """
    try:
        # O_NOFOLLOW: in a shared working directory another user may have put a link there.
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # The lock may be that of a file that its owner has removed meanwhile.
        if os.path.samestat(os.fstat(lock), os.stat(path)):
            return lock
    except FileNotFoundError:
        pass
    except BlockingIOError:
        os.close(lock)
        raise FileExistsError(errno.EEXIST, "it belongs to a process that lives", path.removesuffix(_LOCK)) from None
    except OSError:  # a file system without locks: no other process can lock it and take it for a dead owner's either
        return lock
    os.close(lock)
    return None


def sweep(folder: str) -> None:
    """Remove what dead processes of this machine have left in a reserved directory. Never raises."""
    try:
        names = [name for name in os.listdir(folder) if name.endswith(_LOCK)]
    except OSError:
        return
    for name in names:
        _sweep_one(os.path.join(folder, name))


def tidy(folder: str) -> None:
    """Do the same, and remove the reserved directory if nothing is left in it. Never raises."""
    sweep(folder)
    _leave(folder)


def _sweep_one(path: str) -> None:
    try:
        lock = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return
    try:
        if os.read(lock, 1024) == _host():  # of another machine the lock may not be known here
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(lock), os.stat(path)):
                remove(path.removesuffix(_LOCK))
                os.unlink(path)
    except OSError:
        pass
    finally:
        os.close(lock)


def remove(path: str) -> None:
    """Remove a directory with all that is in it, as far as that can be done. Never raises."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return
    except OSError:
        fd = -1
    if fd >= 0:
        try:
            for name in os.listdir(fd):  # a few files, as a rule, which take less this way
                os.unlink(name, dir_fd=fd)
            os.rmdir(path)
            return
        except OSError:
            pass
        finally:
            os.close(fd)
    from shutil import rmtree  # loads what workers need not

    rmtree(path, ignore_errors=True)


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        pass


def _host() -> bytes:
    return os.uname().nodename.encode(errors="surrogateescape")


@dataclass(frozen=True, slots=True)
class OwnDirectory:
    """Gives one try of a task a directory on the node, and takes it away when all is done. The outermost step.

    Attributes:
        path: The directory, relative to the one that the task runs in unless it is absolute.
    """

    path: str

    def run(self, inner: Callable[[], object], where: NodeContext) -> object:
        """Claim the directory and run ``inner``. Raises AppException naming a directory that cannot be had."""
        try:
            own = claim(self.path)
        except FileExistsError as error:
            raise AppException(
                f"the directory {self.path} for staged files is that of another try of this task, which still runs on "
                f"{where.node or 'this machine'}"
            ) from error
        except OSError as error:
            raise AppException(
                f"the directory {self.path} for staged files cannot be made on {where.node or 'this machine'}: "
                f"{error.strerror or error}; set the executor's working_dir to one that can be written"
            ) from error
        try:
            return inner()
        finally:
            own.release()
