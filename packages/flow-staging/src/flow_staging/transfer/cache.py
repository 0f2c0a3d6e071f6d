"""Cache of fetched files: contents kept for the user's later tasks and runs, each version whole."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from flow_core.errors import ConfigurationError
from flow_core.files import REFRESHES
from flow_core.own_files import NotOwnFile, owners, take_own_directory
from flow_staging.transfer.cache_entry import Entry
from flow_staging.transfer.cache_room import KEY_SUFFIX, Room
from flow_staging.transfer.environment import variable
from flow_staging.transfer.locking import locked
from flow_staging.transfer.retry import Control

TRUST_VARIABLE = "FLOW_CACHE_TRUST"
_TRUST = TRUST_VARIABLE.encode()
_NOBODY: frozenset[int] = frozenset()
_LOG = logging.getLogger("flow.staging.cache")
_lock = threading.Lock()
_warned: set[str] = set()
_made: dict[Path, float] = {}
_LOOK_S = 1.0  # seconds between looks at the cache's directory: for each small file they cost more than the rest


@dataclass(frozen=True, slots=True)
class CachePolicy:
    """Policy of the cache: how much is kept, where, and when it is used without asking the other side.

    A content is one file on disk with those in the directories of tasks that hold it, and takes space once, where the
    cache is on their file system. A path that the user chose gets a copy of its own (sharing blocks where the file
    system can) unless no other has the content, so an app that writes into such an input never changes that of
    another. Where one writes into the others, the cache notices it and fetches anew.

    Attributes:
        max_bytes: Space on disk for what is kept; the longest unused go first, but never what is in use.
        min_bytes: Smaller files are not kept, so each task fetches its own.
        max_files: How many contents are kept.
        refresh: When the other side is asked whether it has another version: once a run (``"run"``), so that all its
            tasks see the same one; once a task (``"task"``), whose tries then see the same one; or only for what is
            not kept (``"never"``). A File may say otherwise.
        directory: Where it is kept, below the number of the user: an absolute path. None means ``FLOW_CACHE``, or
            else the user's own cache.
        trust_others: Take from other users of the same directory what the other side still has in that version: from
            all of them, or from those in a tuple of names or numbers of users. None means what ``FLOW_CACHE_TRUST``
            says: ``1`` for all, or names with commas between.
    """

    max_bytes: int = 10 << 30
    min_bytes: int = 0
    max_files: int = 100_000
    refresh: str = "run"
    directory: str | None = None
    trust_others: bool | tuple[str | int, ...] | None = None

    def __post_init__(self) -> None:
        """Refuse what makes no sense, naming the option."""
        for name in ("max_bytes", "min_bytes", "max_files"):
            if getattr(self, name) < 0:
                raise ConfigurationError(f"CachePolicy({name}={getattr(self, name)!r}): it cannot be negative")
        if self.refresh not in REFRESHES:
            raise ConfigurationError(f"CachePolicy(refresh={self.refresh!r}): give one of {', '.join(REFRESHES)}")
        if not isinstance(self.trust_others, (bool, tuple, type(None))):
            raise ConfigurationError(
                f"CachePolicy(trust_others={self.trust_others!r}): give True, False, or a tuple of names of users"
            )
        if isinstance(self.trust_others, tuple):
            owners(self.trust_others)
        if self.directory is not None and not os.path.isabs(self.directory):
            raise ConfigurationError(
                f"CachePolicy(directory={self.directory!r}): give an absolute path, the same for all processes"
            )

    def trusted(self) -> frozenset[int] | None:
        """Return the numbers of the users whose contents are taken, None for all of them.

        Raises:
            ConfigurationError: a name is no user of this machine.
        """
        chosen = self.trust_others
        if chosen is None:
            said = variable(_TRUST).strip()
            if not said:
                return _NOBODY
            names = () if said in ("", "0", "1") else tuple(name for part in said.split(",") if (name := part.strip()))
            chosen = names or said == "1"
        if isinstance(chosen, bool):
            return None if chosen else frozenset()
        return owners(chosen)


DEFAULT_CACHE = CachePolicy()


class ContentCache:
    """The contents kept in one directory, all of one user.

    Safe under any number of threads and processes, also on several nodes. An entry is named by the digest of its URL:
    ``.entry``, the record, is locked by whoever fetches or uses it, so that one content is fetched once however many
    want it; ``.part`` is what has come so far of a version; each whole version is a ``.data`` file.
    """

    def __init__(self, root: Path, policy: CachePolicy) -> None:
        self._root = root
        self._policy = policy

    @contextlib.contextmanager
    def entry(self, url: str, control: Control, *, private: bool = False) -> Iterator[Entry | None]:
        """Give the entry of a URL to one user at a time; waits for another until the deadline of ``control``.

        Gives None where the file system allows no cache (read-only, no locks): the file is then fetched without.

        Args:
            url: The URL, with whatever else decides what is fetched.
            control: Deadline and stop.
            private: What is fetched is for this user's eyes only, wherever the cache is.

        Raises:
            PermanentTransferError: the deadline passed.
        """
        # 128 bits: names must not collide, and need not be secret.
        key = hashlib.blake2b(url.encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()
        path = f"{self._root}/{key}{KEY_SUFFIX}"
        mode = 0o600 if private else 0o644
        try:
            try:
                _make(self._root)
                fd, size = locked(path, control, mode)
            except FileNotFoundError:  # it was removed since it was looked at
                _made.pop(self._root, None)
                _make(self._root)
                fd, size = locked(path, control, mode)
        except NotOwnFile as error:
            # Without the cache the file still comes: a foreign file in its place must not stop a run.
            _warn(error)
            yield None
            return
        except OSError:
            yield None
            return
        entry = None
        try:
            entry = Entry(self._root, key, fd, size, private=private)
            entry.trusted = self._policy.trusted()
            yield entry
            room = Room(self._root, self._policy.max_bytes, self._policy.max_files)
            # Only after a success: a failed fetch has added nothing.
            room.added(entry.added, but=key)
        finally:
            try:
                # Under the lock: another one that waits for it sees that the file has another inode, and makes a new
                # one.
                if entry is not None and not entry.holds_something:
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(path)
            finally:
                os.close(fd)


def _make(root: Path) -> None:
    """Make the directory, and close it to writers but its owner; once a second, for each small file asks.

    Raises:
        NotOwnFile: it is somebody else's, or a link of somebody else.
        OSError: it cannot be made.
    """
    now = time.monotonic()
    if now - _made.get(root, -_LOOK_S) < _LOOK_S:
        return
    try:
        take_own_directory(root)
    except FileNotFoundError:
        root.parent.mkdir(parents=True, exist_ok=True)
        root.mkdir(exist_ok=True)
        # The tag tells backup programs to leave the directory out.
        with contextlib.suppress(FileExistsError), (root / "CACHEDIR.TAG").open("x") as tag:
            tag.write("Signature: 8a477f597d28d172789f06886806bc55\n# Files that Flow has fetched: may be removed.\n")
        take_own_directory(root)
    _made[root] = now


def _warn(error: NotOwnFile) -> None:
    """Say once what hinders the cache: files are fetched without it, each time anew."""
    text = str(error)
    with _lock:
        if text in _warned:
            return
        _warned.add(text)
    _LOG.warning("files are fetched without the cache: %s; remove it, or give CachePolicy(directory=...)", text)
