"""Space of the cache on disk: its bounds, the order of eviction, and its contents."""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

KEY_SUFFIX = ".entry"
_SHARE = 64
"""One part in so many of the bound may be added by a process before it looks again what others have added."""
_SHARE_OF_ROOM = 16
"""Where that is more: one part in so many of the free room at the look, since a look at a large cache takes long."""
_SKEW_S = 600.0  # seconds that clocks of several machines may differ
_BLOCK = 512  # bytes; the unit of st_blocks, whatever the file system's own block is
_DOWN_TO = 0.9  # part of the bounds that is left after eviction, so that not every further file evicts again

_lock = threading.Lock()
_known: dict[Path, _Seen] = {}


@dataclass(slots=True)
class _Seen:
    """Knowledge of a process about a cache: its contents at the last look, and what the process has added since."""

    bytes: int
    files: int
    bytes_since: int = 0
    files_since: int = 0


@dataclass(slots=True)
class Kept:
    """One kept URL with all its files in the cache.

    Attributes:
        key: Its name in the cache.
        bytes: Space that it takes on disk.
        used: When it was used last, in seconds of the epoch.
        names: Its files.
    """

    key: str
    bytes: int = 0
    used: float = 0.0
    names: list[str] = field(default_factory=list)


def contents(root: Path) -> Iterator[Kept]:
    """Yield the kept URLs of a directory; none where it is not there."""
    found: dict[str, Kept] = {}
    with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(root) as files:
        for file in files:
            key, dot, _ = file.name.partition(".")
            # Other files, such as the CACHEDIR.TAG, are none of the cache's.
            if not dot or len(key) != 32:
                continue
            one = found.setdefault(key, Kept(key))
            one.names.append(file.name)
            with contextlib.suppress(FileNotFoundError):
                state = file.stat(follow_symlinks=False)
                one.bytes += state.st_blocks * _BLOCK
                if file.name.endswith(KEY_SUFFIX):
                    one.used = state.st_mtime
    yield from found.values()


class Room:
    """The bounds of one cache. Any thread, any process; each looks at the directory now and then only."""

    def __init__(self, root: Path, max_bytes: int, max_files: int) -> None:
        self._root = root
        self._max_bytes = max_bytes
        self._max_files = max_files

    def added(self, size: int, *, but: str) -> None:
        """Note that a content of this size was added, 0 for none, and throw out others if there is too much now.

        Never raises OSError: what cannot be removed stays. ``but`` is the entry that the caller holds.
        """
        if size <= 0:
            return
        with _lock:
            seen = _known.get(self._root)
            if seen is not None:
                seen.bytes_since += size
                seen.files_since += 1
                if self._fits(seen):
                    return
            _known[self._root] = _Seen(0, 0)  # who comes meanwhile need not look too
        with contextlib.suppress(OSError):
            self._look(but)

    def _fits(self, seen: _Seen) -> bool:
        few_bytes = seen.bytes_since <= _unseen(self._max_bytes, seen.bytes)
        few = few_bytes and seen.files_since <= _unseen(self._max_files, seen.files)
        bytes_, files = seen.bytes + seen.bytes_since, seen.files + seen.files_since
        return few and bytes_ <= self._max_bytes and files <= self._max_files

    def _aged(self, one: Kept) -> Kept:
        """Take what was used in the future as used now: the clock has been put back, and it would stay for ever."""
        now = time.time()
        if one.used > now + _SKEW_S:
            one.used = now
            with contextlib.suppress(OSError):
                os.utime(self._root / f"{one.key}{KEY_SUFFIX}")
        return one

    def _look(self, but: str) -> None:
        # The longest unused first.
        there = sorted(map(self._aged, contents(self._root)), key=lambda one: one.used)
        total, count = sum(one.bytes for one in there), len(there)
        if total > self._max_bytes or count > self._max_files:
            most_bytes, most_files = self._max_bytes * _DOWN_TO, self._max_files * _DOWN_TO
            for one in there:
                if total <= most_bytes and count <= most_files:
                    break
                if one.key != but and evict(self._root, one):
                    total, count = total - one.bytes, count - 1
        with _lock:
            _known[self._root] = _Seen(total, count)


def _unseen(most: int, there: int) -> int:
    """Return how much a process may add before it looks again, to what was there when it looked."""
    return max(most // _SHARE, (most - there) // _SHARE_OF_ROOM)


def evict(root: Path, kept: Kept, unused_s: float = 0.0) -> bool:
    """Remove an entry unless someone is using it, or did less than so many seconds ago."""
    path = root / f"{kept.key}{KEY_SUFFIX}"
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError:
        return False
    try:
        # Without waiting: an entry that is locked is in use, and not among the longest unused.
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        state = os.fstat(fd)
        if not os.path.samestat(state, os.stat(path)) or time.time() - state.st_mtime < unused_s:
            return False
        # The record last: while it is there and locked, no other process uses the data.
        for name in kept.names:
            if name != path.name:
                (root / name).unlink(missing_ok=True)
        path.unlink(missing_ok=True)
    except OSError:
        return False
    finally:
        os.close(fd)
    return True
