"""Contents that were fetched before, kept beside the files of one working directory."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from flow_core.errors import ConfigurationError
from flow_staging.transfer.failures import Refused
from flow_staging.transfer.publish import place
from flow_staging.transfer.retry import Control

DIRECTORY = ".flow-cache"
_POLL_FIRST_S, _POLL_LAST_S = 0.005, 0.25


@dataclass(frozen=True, slots=True)
class CachePolicy:
    """How much is kept.

    Contents are shared with the staged files by hard links and cost no space while these exist. An app that writes
    into its own input in place changes the content for those who have the same file; the cache notices that and
    fetches anew. Where apps do so while others read, give the method ``cache=None``.

    Attributes:
        max_bytes: Sum of the sizes kept in one working directory; the longest unused go first.
        min_bytes: Smaller files are not kept: asking whether they changed costs as much as fetching them.
    """

    max_bytes: int = 10 << 30
    min_bytes: int = 64 << 10

    def __post_init__(self) -> None:
        """Refuse what makes no sense, naming the option."""
        for name in ("max_bytes", "min_bytes"):
            if getattr(self, name) < 0:
                raise ConfigurationError(f"CachePolicy({name}={getattr(self, name)!r}): bytes cannot be negative")


DEFAULT_CACHE = CachePolicy()


class ContentCache:
    """The contents kept in one directory. Safe under any number of threads and processes, also on several nodes.

    An entry is three files named by the digest of the URL: ``.lock``, held by whoever fetches or uses it (so one
    content is fetched once however many want it), ``.json`` (version and signature) and ``.data``.
    """

    def __init__(self, directory: Path, policy: CachePolicy) -> None:
        self._root = directory / DIRECTORY
        self._policy = policy

    @contextlib.contextmanager
    def entry(self, url: str, control: Control) -> Iterator[Entry | None]:
        """Give the entry of a URL to one user at a time; waits for another until the deadline of ``control``.

        Gives None where the file system allows no cache (read-only, no locks): the file is then fetched without.

        Raises:
            Refused: the deadline passed.
        """
        key = hashlib.blake2b(url.encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()
        lock = self._root / f"{key}.lock"
        try:
            self._root.mkdir(parents=True, exist_ok=True)
            fd = _locked(lock, control)
        except OSError:
            yield None
            return
        try:
            entry = Entry(self._root, key, self._policy)
            yield entry
        finally:
            if not (self._root / f"{key}.data").exists():
                lock.unlink(missing_ok=True)
            os.close(fd)


class Entry:
    """One content of a cache, held by one user.

    Attributes:
        validator: Version of the content that is here whole and unchanged; empty if there is none.
    """

    def __init__(self, root: Path, key: str, policy: CachePolicy) -> None:
        self._root = root
        self._policy = policy
        self._key = key
        self._data = root / f"{key}.data"
        self._record = root / f"{key}.json"
        self.validator = self._valid()

    def place(self, path: Path) -> bool:
        """Put the content at a path; False if it is not here any more. Raises Refused."""
        try:
            if not self._valid():
                self.validator = ""
                return False
            place(self._data, path)
            os.utime(self._record)  # the time of the last use
        except FileNotFoundError:
            self.validator = ""
            return False
        return True

    def keep(self, path: Path, validator: str) -> None:
        """Keep the content of a file of the same file system, and throw out what no longer fits.

        Never fails a transfer: what cannot be kept is not kept.
        """
        try:
            size = path.stat().st_size
            if self._policy.min_bytes <= size <= self._policy.max_bytes:
                self._store(path, validator)
                self._make_room()
        except OSError:
            _remove(self._root, self._key)

    def _store(self, path: Path, validator: str) -> None:
        _remove(self._root, self._key)
        os.link(path, self._data)
        state = self._data.stat()
        record = {"validator": validator, "size": state.st_size, "mtime_ns": state.st_mtime_ns}
        temporary = self._record.with_suffix(".new")
        temporary.write_text(json.dumps(record))
        os.replace(temporary, self._record)

    def _valid(self) -> str:
        try:
            record = json.loads(self._record.read_text())
            state = self._data.stat()
            if (state.st_size, state.st_mtime_ns) == (record["size"], record["mtime_ns"]):
                return str(record["validator"])
        except (OSError, ValueError, KeyError, TypeError):
            pass
        _remove(self._root, self._key)
        return ""

    def _make_room(self) -> None:
        sizes: dict[str, int] = {}
        used: dict[str, int] = {}
        with os.scandir(self._root) as found:
            for file in found:
                key, _, kind = file.name.partition(".")
                with contextlib.suppress(FileNotFoundError):
                    if kind == "data":
                        sizes[key] = file.stat().st_size
                    elif kind == "json":
                        used[key] = file.stat().st_mtime_ns
        total = sum(sizes.values())
        for key in sorted(sizes, key=lambda key: used.get(key, 0)):
            if total <= self._policy.max_bytes:
                return
            if key != self._key and _evict(self._root, key):
                total -= sizes[key]


def _locked(path: Path, control: Control) -> int:
    pause = _POLL_FIRST_S
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(fd), os.stat(path)):
                return fd
        except (BlockingIOError, FileNotFoundError):
            pass
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)
        try:
            control.pause(pause)
        except Refused as error:
            raise Refused(f"{error} (another task was fetching the same file)") from error
        pause = min(pause * 2, _POLL_LAST_S)


def _evict(root: Path, key: str) -> bool:
    """Remove an entry unless someone is using it."""
    lock = root / f"{key}.lock"
    try:
        fd = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not os.path.samestat(os.fstat(fd), os.stat(lock)):
            return False
        _remove(root, key)
        lock.unlink(missing_ok=True)
    except OSError:
        return False
    finally:
        os.close(fd)
    return True


def _remove(root: Path, key: str) -> None:
    for suffix in ("json", "data", "new"):
        (root / f"{key}.{suffix}").unlink(missing_ok=True)
