"""Names of the directories in which rsync keeps outputs that are not whole yet, beside where these go.

Others may write to a directory of outputs. A name that they can foresee they could take first: what is half there would
be theirs to read and to change. So each transfer has a random name of its own, unless a directory of this user's is
there already under the name that the last try had. Since command lines of rsync can be read by others, the directory is
made before, where others may write. This is done on the submit side, which is also where what is left is removed.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import stat
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Sequence

PREFIX = ".flow-rsync-partial"
_MOST = 4096  # names and directories remembered; bounds the memory of a long script
_SWEEP_S = 5.0  # seconds for removing what is left, since scripts wait for it at their end

Place = tuple[str, bool]
"""The directory to which an output goes, and whether all below it may hold what is not whole."""


def new_name() -> str:
    """Return a name that cannot be foreseen by other users."""
    return f"{PREFIX}-{secrets.token_hex(8)}"


class PartialNames:
    """The names of one script's transfers. Any thread.

    Args:
        timeout_s: The longest time of a transfer: what has not changed for as long is left of one that was killed.
    """

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._known: OrderedDict[tuple[tuple[str, ...], tuple[Place, ...]], str] = OrderedDict()
        self._looked_at: set[str] = set()

    def name_for(self, paths: Sequence[str], places: Iterable[Place]) -> str:
        """Return the name for outputs of those paths: of the last try, where that has left something, else a new one.

        Makes directories of that name where others could, and removes what killed scripts have left. Never raises.
        """
        where = tuple(places)
        key = (tuple(paths), where)
        with self._lock:
            name = self._known.pop(key, "")
            fresh = [folder for folder, _ in where if folder not in self._looked_at]
            self._looked_at.update(fresh)
            if len(self._looked_at) > _MOST:
                self._looked_at.clear()
            if not name or not any(_is_own(os.path.join(folder, name)) for folder, _ in where):
                if name:
                    _remove(name, where, time.monotonic() + _SWEEP_S)
                name = new_name()
            self._known[key] = name
            if len(self._known) > _MOST:
                self._known.popitem(last=False)
        for folder in fresh:
            self._remove_old(folder)
        for folder, _ in where:
            if _others_may_write(folder):
                with contextlib.suppress(OSError):  # where it is somebody else's, rsync says so
                    # Made before rsync starts: its command line shows the name to everybody.
                    os.mkdir(os.path.join(folder, name), 0o700)
        return name

    def close(self) -> None:
        """Remove what is left of transfers that have failed; takes 5 s at most. May be used again."""
        until = time.monotonic() + _SWEEP_S
        with self._lock:
            known, self._known = self._known, OrderedDict()
            self._looked_at.clear()
        for (_, where), name in known.items():
            _remove(name, where, until)

    def _remove_old(self, folder: str) -> None:
        before = time.time() - self._timeout_s
        with contextlib.suppress(OSError), os.scandir(folder) as found:
            for one in found:
                if one.name.startswith(PREFIX) and _is_own(one.path) and os.lstat(one.path).st_mtime < before:
                    shutil.rmtree(one.path, ignore_errors=True)


def _remove(name: str, places: Iterable[Place], until: float) -> None:
    for folder, deep in places:
        for here in (top for top, _, _ in os.walk(folder)) if deep else (folder,):
            if time.monotonic() > until:
                return
            path = os.path.join(here, name)
            if _is_own(path):
                shutil.rmtree(path, ignore_errors=True)


def _others_may_write(folder: str) -> bool:
    try:
        status = os.stat(folder)
    except (OSError, ValueError):
        return False  # rsync makes it
    return status.st_uid != os.geteuid() or bool(status.st_mode & (stat.S_IWGRP | stat.S_IWOTH))


def _is_own(path: str) -> bool:
    """Whether a directory of this user's is there, and no link."""
    try:
        status = os.lstat(path)
    except (OSError, ValueError):
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()
