"""The last lines of a task's standard output and error, of files that its run has written.

The database is not trusted: whoever can write it could name any file of whoever serves the pages. A file is shown where
it is in the run's own directory, or where the run's event log names it and both belong to the same user. Nobody else
can lead the way to it elsewhere: links are followed only if that user, or root, has made them.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from flow_monitor.log.mentions import mentions

_MOST = 16_384
_MOST_LINKS = 40
_NO_LINK = getattr(os, "O_PATH", 0) | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Tail:
    """The end of a file; ``reason`` says why there is none. ``size`` in bytes."""

    text: str = ""
    size: int = 0
    reason: str = ""


class _Refused(Exception):
    """A file is not shown; the text says why."""


def tail(run_dir: str, path: str) -> Tail:
    """Return the end of a file that a task of a run wrote to, or why it is not shown. Never raises."""
    scheme = urlsplit(path).scheme
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
    root = Path(os.path.realpath(run_dir)) if run_dir else None
    log = None if root is None else root / "monitoring" / "events.log"
    if root is None or log is None or not log.is_file():
        raise _Refused("the run's directory is not on this machine")
    real = Path(os.path.realpath(os.path.join(root, local)))
    absolute = os.path.isabs(local)
    if real.is_relative_to(root) and (absolute or real.exists()):
        return _end_of(real)
    if not absolute:
        raise _Refused("it was recorded without the directory that it is in: open it where the script ran")
    with open(os.open(log, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as stream:
        owner = os.fstat(stream.fileno()).st_uid
        if not mentions(stream, recorded):
            raise _Refused("the run's event log does not name it: open it yourself")
    return _end_of(_way_to(local, owner), owner)


def _end_of(path: Path | int, owner: int | None = None) -> Tail:
    """Read the end of a plain file, by its path or by a descriptor of it, of a certain owner. Closes the descriptor."""
    try:
        name = f"/proc/self/fd/{path}" if isinstance(path, int) else path
        status = os.stat(name)
        if not stat.S_ISREG(status.st_mode):
            raise _Refused("not a plain file")
        with open(os.open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as stream:
            status = os.fstat(stream.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise _Refused("not a plain file")
            if owner is not None and status.st_uid != owner:
                raise _Refused("it belongs to another user than the run: open it yourself")
            stream.seek(max(0, status.st_size - _MOST))
            return Tail(stream.read(_MOST).decode("utf-8", "replace"), status.st_size)
    finally:
        if isinstance(path, int):
            os.close(path)


def _way_to(path: str, owner: int) -> int:
    """Return a descriptor of a file that is not opened yet, found step by step.

    No step can be changed behind our back: each is taken from the directory that the one before led to, and a link is
    followed only if the owner or root has made it.

    Raises:
        OSError: there is no such file.
        _Refused: a link on the way is somebody else's.
    """
    if not hasattr(os, "O_PATH"):
        raise _Refused("not in the run's directory: open it yourself")
    here, links = os.open("/", _NO_LINK), 0
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
