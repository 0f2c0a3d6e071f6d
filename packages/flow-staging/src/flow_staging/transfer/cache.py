"""Contents that were fetched before, kept beside the files of one working directory."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from flow_core.errors import ConfigurationError
from flow_staging.transfer.failures import Refused
from flow_staging.transfer.publish import Partial, duplicate
from flow_staging.transfer.retry import Control

DIRECTORY = ".flow-cache"
_POLL_FIRST_S, _POLL_LAST_S = 0.005, 0.25
_PAST_NS = 3_000_000_000  # longer than the coarsest clock of a file system ticks


@dataclass(frozen=True, slots=True)
class CachePolicy:
    """How much is kept.

    A content is one file on disk with the first staged file that holds it, and costs no space while that exists.
    Any other path gets a copy of its own (sharing blocks where the file system can), so an app that writes into its
    own input never changes that of another path; the cache notices it and fetches anew.

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


@dataclass(frozen=True, slots=True)
class _Version:
    """Which version of a content is kept: its name with the other side, and its digest if that states one."""

    validator: str
    digest: str


@dataclass(frozen=True, slots=True)
class _Signature:
    """What the file system says of a content that nobody has written to since.

    The time of change is set into the past when a content is kept, so that a write shows however soon it comes. Tools
    that put it back afterwards are found by the time of the last change of the inode, unless names of the file came
    or went meanwhile, which change that too.
    """

    size: int
    mtime_ns: int
    ctime_ns: int
    links: int

    @classmethod
    def of(cls, fd: int) -> _Signature:
        state = os.fstat(fd)  # of an open file: what network file systems know of one that is not may be old
        return cls(state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_nlink)

    def fits(self, now: _Signature) -> bool:
        same = (self.size, self.mtime_ns) == (now.size, now.mtime_ns)
        return same and (self.ctime_ns == now.ctime_ns or self.links != now.links)


class Entry:
    """One content of a cache, held by one user.

    Attributes:
        validator: Version of the content that is here whole and unchanged; empty if there is none.
        digest: The content's digest as the other side stated it, hexadecimal; empty if it did not.
    """

    def __init__(self, root: Path, key: str, policy: CachePolicy) -> None:
        self._root = root
        self._policy = policy
        self._key = key
        self._data = root / f"{key}.data"
        self._record = root / f"{key}.json"
        self.digest = ""
        self.validator = self._valid()

    def place(self, path: Path) -> bool:
        """Put the content at a path; False if it is not here any more, unchanged. Raises Refused."""
        try:
            if not self._valid() or not self._placed(path):
                self.validator = ""
                return False
            os.utime(self._record)  # the time of the last use
        except FileNotFoundError:
            self.validator = ""
            return False
        return True

    def _placed(self, path: Path) -> bool:
        """Leave a path that has the content; else give it the content's own file if no path has it, or a copy."""
        with self._data.open("rb") as source:
            state = os.fstat(source.fileno())
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(state, path.lstat()):
                    return True
            with Partial(path) as part:
                if state.st_nlink == 1 and self._linked(part):
                    return True
                duplicate(source, part)
                if not self._valid():  # written to while it was copied
                    return False
                part.publish()
        return True

    def _linked(self, part: Partial) -> bool:
        """Put the content's own file at a path; False where there are no links."""
        link = part.path.with_suffix(".link")
        try:
            os.link(self._data, link)
            os.replace(link, part.final)
            self.published()
        except OSError:
            return False
        finally:
            link.unlink(missing_ok=True)
        return True

    def keep(self, path: Path, validator: str, digest: str = "") -> None:
        """Keep the content of a file of the same file system, and throw out what no longer fits.

        Never fails a transfer: what cannot be kept is not kept. To be called before the file is published, and
        ``published`` after it.
        """
        try:
            size = path.stat().st_size
            if self._policy.min_bytes <= size <= self._policy.max_bytes:
                self._store(path, _Version(validator, digest))
                self._make_room()
        except OSError:
            _remove(self._root, self._key)

    def published(self) -> None:
        """Note that the content's file got another name, unless it was written to at once."""
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
            version, signature = self._noted()
            now = self._now()
            if (now.size, now.mtime_ns) == (signature.size, signature.mtime_ns):
                self._note(version, now)

    def _store(self, path: Path, version: _Version) -> None:
        _remove(self._root, self._key)
        past = time.time_ns() - _PAST_NS
        os.utime(path, ns=(past, past))
        os.link(path, self._data)
        self._note(version, self._now())

    def _now(self) -> _Signature:
        with self._data.open("rb") as data:
            return _Signature.of(data.fileno())

    def _noted(self) -> tuple[_Version, _Signature]:
        record = json.loads(self._record.read_text())
        version = _Version(str(record.pop("validator")), str(record.pop("digest", "")))
        return version, _Signature(**record)

    def _note(self, version: _Version, signature: _Signature) -> None:
        temporary = self._record.with_suffix(".new")
        temporary.write_text(json.dumps({**asdict(version), **asdict(signature)}))
        os.replace(temporary, self._record)

    def _valid(self) -> str:
        try:
            version, signature = self._noted()
            if signature.fits(self._now()):
                self.digest = version.digest
                return version.validator
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
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
