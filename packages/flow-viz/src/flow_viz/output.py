"""The last lines of a task's standard output and error, of files that its run has recorded as such.

The database is not trusted: its writers could name any file of the user who serves the pages. What may be shown
follows from the run's directory instead, and from who owns it: the files below its ``task_logs``, and those that its
event log names. Each belongs to the owner of that directory alone (one link, a plain file), and is found step by step
by descriptors, so that the path cannot be changed meanwhile: links are followed only if that user, or root, made them.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from typing import BinaryIO
from urllib.parse import unquote, urlsplit

from flow_monitor.log.mentions import mentions

_MOST = 16_384  # bytes from the end; some 200 lines, enough for a traceback
_MOST_LINKS = 40  # links on one path, as many as Linux follows (ELOOP)
_LOG = "monitoring/events.log"
_STREAMS = "task_logs/"
# O_PATH: the file is found and not opened, so a pipe does not block and a device does nothing before it is checked.
_NO_LINK = getattr(os, "O_PATH", 0) | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Tail:
    """The end of a file; ``reason`` says why there is none. ``size`` in bytes."""

    text: str = ""
    size: int = 0
    reason: str = ""


class _Refused(Exception):
    """A file must not be shown; the text has the reason, for the page."""


def tail(run_dir: str, path: str) -> Tail:
    """Return the end of a file that a task of a run wrote to, or why it is not shown. Never raises."""
    scheme = urlsplit(path).scheme
    # A path with a scheme is of staging, such as an output that was sent elsewhere.
    if scheme and scheme != "file":
        return Tail(reason="it was not written on this machine")
    local = unquote(urlsplit(path).path) if scheme else path
    try:
        return _shown(run_dir, local, path)
    except _Refused as refused:
        return Tail(reason=str(refused))
    except FileNotFoundError:
        return Tail(reason="there is no such file on this machine (yet, or no longer)")
    except (OSError, ValueError) as error:
        return Tail(reason=getattr(error, "strerror", None) or str(error))


def _shown(run_dir: str, local: str, recorded: str) -> Tail:
    if not hasattr(os, "O_PATH"):
        raise _Refused("this system cannot tell whose way leads to it: open it yourself")
    try:
        root_path = os.path.realpath(run_dir)
        root = os.open(root_path, os.O_RDONLY | os.O_DIRECTORY | _NO_LINK) if run_dir else -1
    except OSError:
        root = -1
    if root < 0:
        raise _Refused("the run's directory is not on this machine")
    try:
        return _in_run(root, root_path, local, recorded)
    finally:
        os.close(root)


def _in_run(root: int, root_path: str, local: str, recorded: str) -> Tail:
    owner = os.fstat(root).st_uid
    try:
        # Read before the output is looked for: the log of the run says what its tasks wrote.
        log = _opened(_way_to(_LOG, owner, root), owner)
    except (FileNotFoundError, NotADirectoryError):
        raise _Refused("the run's directory is not on this machine") from None
    with log:
        inside = _beneath(os.path.join(root_path, local), root_path)
        if not (os.path.isabs(local) or (inside is not None and _is_there(inside, root))):
            raise _Refused("it was recorded without the directory that it is in: open it where the script ran")
        if not (inside or "").startswith(_STREAMS) and not mentions(log, recorded):
            raise _Refused("the run's event log does not name it: open it yourself")
    found = _way_to(local, owner) if inside is None else _way_to(inside, owner, root)
    with _opened(found, owner) as stream:
        size = os.fstat(stream.fileno()).st_size
        # Outputs may have gigabytes: only the end is read, whatever the file's size.
        stream.seek(max(0, size - _MOST))
        return Tail(stream.read(_MOST).decode("utf-8", "replace"), size)


def _beneath(path: str, root: str) -> str | None:
    """Return a path relative to a directory that it is in by its spelling; None if it is elsewhere."""
    relative = os.path.relpath(os.path.normpath(path), root)
    return None if relative.split(os.sep, 1)[0] in (os.pardir, os.curdir) else relative


def _is_there(path: str, directory: int) -> bool:
    try:
        os.stat(path, dir_fd=directory, follow_symlinks=False)
    except OSError:
        return False
    return True


def _opened(way: int, owner: int) -> BinaryIO:
    """Open a plain file of one link and a certain owner by a descriptor of it, which is closed."""
    try:
        status = os.fstat(way)
        if not stat.S_ISREG(status.st_mode):
            raise _Refused("not a plain file")
        if status.st_uid != owner:
            raise _Refused("it belongs to another user than the run: open it yourself")
        # A hard link needs no permission to read: somebody could give a file of ours a second name in a place that we
        # show.
        if status.st_nlink != 1:
            raise _Refused("it has a second name elsewhere, which anybody may have given it: open it yourself")
        # By the descriptor that was checked: opened by its name again, it could be another file by now.
        return open(os.open(f"/proc/self/fd/{way}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
    finally:
        os.close(way)


def _way_to(path: str, owner: int, start: int | None = None) -> int:
    """Return a descriptor of a file that is not opened yet, found step by step from a directory; None: the root.

    No step can be changed meanwhile: each is taken from the directory that the one before led to, and a link is
    followed only if the owner or root has made it.

    Raises:
        OSError: there is no such file.
        _Refused: a link on the path is another user's.
    """
    here, links = os.open("/", _NO_LINK) if start is None else os.dup(start), 0
    # Reversed, so that the next step is popped from the end and those of a link are put on top.
    steps = [step for step in path.split("/") if step][::-1]
    try:
        while steps:
            found = os.open(steps.pop(), _NO_LINK, dir_fd=here)
            status = os.fstat(found)
            if not stat.S_ISLNK(status.st_mode):
                os.close(here)
                here = found
                continue
            try:
                # The link itself, by its descriptor: nobody can have exchanged it since the check.
                target = os.readlink("", dir_fd=found)
            finally:
                os.close(found)
            links += 1
            if status.st_uid not in (0, owner) or links > _MOST_LINKS:
                raise _Refused("a link on the way to it is another user's: open it yourself")
            if target.startswith("/"):
                os.close(here)
                here = os.open("/", _NO_LINK)
            steps += [step for step in target.split("/") if step][::-1]
        return here
    except BaseException:
        os.close(here)
        raise
