"""Digests of local files: each read once for each state that the file system shows of it."""

from __future__ import annotations

import json
import logging
import os
import stat
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from typing import NamedTuple

from flow_core.files import File
from flow_core.folders import plain_file
from flow_core.interfaces.staging import Versions
from flow_core.interfaces.versions import content_of, stamp_of, state_of, version_of_contents, version_of_files
from flow_core.staging.file_work import BackgroundFileWork

DIGESTED_BYTES = 256 << 20
"""Bytes (256 MiB). Larger files are known by size and time of their last change: to read them takes too long."""
_KNOWN_MAX = 100_000  # files whose digests are kept; the ones not asked for the longest go first
_AT_ONCE = 16  # files that the calling thread asks the file system for; more go to the threads that read
_THERE = "there"
"""The version of directories within others, of devices and pipes."""
_READERS = 4  # threads; reading waits for disks and digests leave the interpreter's lock, so some at once pay
_NOTED_MAX = 1000
"""Files: of a directory with more of them no stamps are noted for later runs, since its version would grow too long."""
_TRIES = 3  # readings of a file that is written to meanwhile, before it counts as changing
_CHUNK = 1 << 20  # bytes
_LINKS_MAX = 40  # links that lead to links; systems follow no more
# Well above the tick (10 ms at most) of the clock that the system takes times of files from.
_TICK_NS = 100_000_000  # ns
_COARSE_NS = 3_000_000_000  # ns; the same for file systems that know whole seconds, or every second one (FAT)
_SECOND_NS = 1_000_000_000  # ns

_logger = logging.getLogger("flow.staging")


class Stamp(NamedTuple):
    """State of a file as the file system has it; while it is the same, the file holds the same.

    Attributes:
        size: In bytes.
        mtime_ns: Time of the last change, as anybody may set it.
        ctime_ns: The same, as only the file system sets it.
        inode: Number of the file on its disk.
    """

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int

    @classmethod
    def of(cls, status: os.stat_result) -> Stamp:
        """Return that of a status."""
        return cls(status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)

    @property
    def state(self) -> str:
        """The part that changes when the file is written to; another name (a hard link) does not count."""
        return f"{self.size} {self.mtime_ns} {self.inode}"

    def lasts(self, now_ns: int) -> bool:
        """Tell whether any change after this moment shows: not before the clock of the file system has moved on."""
        # A time without parts of a second is that of a coarse clock, as a rule.
        tick_ns = _TICK_NS if self.ctime_ns % _SECOND_NS else _COARSE_NS
        return self.ctime_ns < now_ns - tick_ns


class Contents:
    """Looks at what local files hold. Any thread; reading is done by threads that do nothing else."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: OrderedDict[str, tuple[Stamp, str]] = OrderedDict()
        self._earlier: Callable[[], Iterable[str]] | None = None
        self._readers = BackgroundFileWork("flow-staging-contents", threads=_READERS)

    def ask(self, earlier: Callable[[], Iterable[str]]) -> None:
        """Take what gives versions that earlier runs knew, so that files need not be read again; called when needed."""
        self._earlier = earlier

    def look(self, files: Sequence[File]) -> Future[Versions]:
        """Return what files hold, as ``version_of_contents`` says it; empty for what is not there.

        Files whose digests are known take a ``stat`` each, a few files by this thread. Relative paths must be tied to a
        directory.
        """
        found: Future[Versions] = Future()
        few = len(files) <= _AT_ONCE
        versions = [self._at_once(file) if few else None for file in files]
        if None in versions:
            self._readers.do(partial(self._read, files, versions, found))
        else:
            found.set_result(versions)
        return found

    def close(self) -> None:
        """Wait for what is being read, for some seconds at most."""
        self._readers.close()

    # -- how

    def _at_once(self, file: File) -> str | None:
        """Return what a file holds where no file need be read for that; else None."""
        if file.kind != "file":
            return None
        path = _path_of(file)
        try:
            status, links = _status_of(path)
        except (FileNotFoundError, NotADirectoryError, ValueError):
            return ""
        except OSError:
            return None
        if not stat.S_ISREG(status.st_mode):
            return None if stat.S_ISDIR(status.st_mode) else _THERE
        known = self._known_version(path, Stamp.of(status))
        return None if known is None else _by_links(known, links)

    def _known_version(self, path: str, stamp: Stamp) -> str | None:
        """Return what a file holds if that is known by what the file system says of it, else None."""
        if stamp.size > DIGESTED_BYTES:
            return version_of_contents(f"{stamp.size} {stamp.mtime_ns}", stamp.state)
        # Without the lock: entries are replaced as a whole.
        known = self._known.get(path)
        return known[1] if known is not None and known[0] == stamp else None

    def _read(self, files: Sequence[File], versions: Sequence[str | None], found: Future[Versions]) -> None:
        known: list[str] = []
        try:
            self._learn()
            pairs = zip(files, versions, strict=True)
            known = [self._version(file) if version is None else version for file, version in pairs]
        except BaseException as error:
            _logger.error("What %s hold could not be found out", ", ".join(map(str, files)), exc_info=error)
            known = [version_of_contents(f"unknown at {time.time_ns()}")] * len(files)  # which none will be again
        finally:
            found.set_result(known)

    def _learn(self) -> None:
        """Take, once, what earlier runs knew; other readers wait meanwhile, since they need it, too."""
        with self._lock:
            earlier, self._earlier = self._earlier, None
            for version in () if earlier is None else earlier():
                for path, stamp, content in _taken(stamp_of(version)):
                    self._keep(path, stamp, content)

    def _version(self, file: File) -> str:
        """Return what a file or directory holds, which may take its time."""
        root = _path_of(file)
        if not os.path.isdir(root):
            return self._of_file(root)
        try:
            names = _all_below(root)
        except OSError as error:
            return _unreadable(error)
        versions = {name: self._of_file(os.path.join(root, name)) for name in names}
        contents = {name: content_of(version) or "link" for name, version in versions.items()}
        states = {name: state_of(version) for name, version in versions.items()}
        files = [os.path.join(root, name) for name, version in versions.items() if content_of(version) != _THERE]
        found = {path: (each[0], content_of(each[1])) for path in files if (each := self._known.get(path)) is not None}
        noted = _noted(found) if len(found) == len(files) <= _NOTED_MAX else ""
        version = version_of_contents(
            version_of_files(contents, whole=True), version_of_files(states, whole=True), noted
        )
        return _by_links(version, _links_of(root))

    def _of_file(self, path: str) -> str:
        """Return what a file holds; if it is changed all the while, a text that no other look gives."""
        for _ in range(_TRIES):
            begun_ns = time.time_ns()
            try:
                status, links = _status_of(path)
                if not stat.S_ISREG(status.st_mode):
                    return _by_links(_THERE, links)
                stamp = Stamp.of(status)
                known = self._known_version(path, stamp)
                content = "" if known else _digest_of(path, stamp)
            except (FileNotFoundError, NotADirectoryError):
                return ""
            except OSError as error:
                return _unreadable(error)
            if known:
                return _by_links(known, links)
            # Kept only if any later change must show: a write in the same tick of the clock would not.
            if content and stamp.lasts(begun_ns):
                with self._lock:
                    return _by_links(self._keep(path, stamp, content), links)
            if content:
                return _by_links(version_of_contents(content, stamp.state), links)
        return version_of_contents(f"changing at {time.time_ns()}")

    def _keep(self, path: str, stamp: Stamp, content: str) -> str:
        """Keep the digest of a file, and return its version; the caller holds the lock."""
        version = version_of_contents(content, stamp.state, _noted({path: (stamp, content)}))
        self._known[path] = stamp, version
        self._known.move_to_end(path)
        if len(self._known) > _KNOWN_MAX:
            self._known.popitem(last=False)
        return version


def _status_of(path: str) -> tuple[os.stat_result, str]:
    """Return the status of what a path leads to, and what ``_links_of`` says of it. Raises OSError."""
    status = os.lstat(path)
    return (os.stat(path), _links_of(path)) if stat.S_ISLNK(status.st_mode) else (status, "")


def _links_of(path: str) -> str:
    """Return which links a path leads by, empty where it is none; links among the directories above do not count.

    Each by inode and time of change: one that led elsewhere meanwhile, and leads here again, is another link.
    """
    links: list[str] = []
    try:
        while len(links) < _LINKS_MAX and stat.S_ISLNK((status := os.lstat(path)).st_mode):
            links.append(f"{status.st_ino} {status.st_ctime_ns}")
            path = os.path.join(os.path.dirname(path), os.readlink(path))
    except OSError:  # it was removed meanwhile: then the next look finds another state
        links.append("gone")
    return " ".join(links)


def _by_links(version: str, links: str) -> str:
    """Return the version of what some links lead to, with these in its state."""
    if not links:
        return version
    content, state, stamp = (*version.split("\n", 2), "", "")[:3]
    return version_of_contents(content, f"{state} {links}".lstrip(), stamp)


def _unreadable(error: OSError) -> str:
    """Return the version of what cannot be read, which none will have again: the next time it may hold anything."""
    return version_of_contents(f"unreadable at {time.time_ns()}: {error.strerror or error}")


def _all_below(root: str) -> list[str]:
    """Return the paths, from a directory, of all files and directories below it, also behind links. Raises OSError."""
    found: list[str] = []
    seen = {_place_of(root)}
    for folder, folders, names in os.walk(root, onerror=_raise, followlinks=True):
        found += [os.path.relpath(os.path.join(folder, name), root) for name in (*names, *folders)]
        # By device and inode: links may lead in circles, and two paths to one directory are walked once.
        new = {name: _place_of(os.path.join(folder, name)) for name in folders}
        folders[:] = [name for name, place in new.items() if place not in seen]
        seen.update(new.values())
    return sorted(found)


def _place_of(folder: str) -> tuple[int, int]:
    status = os.stat(folder)
    return status.st_dev, status.st_ino


def _raise(error: OSError) -> None:
    raise error


def _path_of(file: File) -> str:
    """Return where a file is on this machine: at the place that was chosen for it, if it is there by now."""
    if file.local_path is not None and not os.path.exists(file.place):
        return os.path.join(file.directory, file.path)
    return file.place


def _digest_of(path: str, stamp: Stamp) -> str:
    """Return the digest of a file; empty if it is another one, or was written to meanwhile. Raises OSError."""
    from hashlib import sha256  # loads OpenSSL, which scripts without such files need not

    digest = sha256(usedforsecurity=False)
    with open(path, "rb", opener=plain_file) as stream:
        # The path may lead to another file by now than the one that was looked at.
        if Stamp.of(os.fstat(stream.fileno())) != stamp:
            return ""
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
        now = Stamp.of(os.fstat(stream.fileno()))
    return f"sha256:{digest.hexdigest()}" if now == stamp else ""


def _noted(known: Mapping[str, tuple[Stamp, str]]) -> str:
    """Return what is known of files as text, for later runs; nothing where one may look the same and be another.

    So may files of two images that are mounted at one place, the times of which were set to one date.
    """
    if not all(stamp.ctime_ns % _SECOND_NS for stamp, _ in known.values()):
        return ""
    return json.dumps([[path, content, *stamp] for path, (stamp, content) in known.items()])


def _taken(noted: str) -> Iterator[tuple[str, Stamp, str]]:
    """Yield what ``_noted`` has put into a text; nothing of another one."""
    try:
        for path, content, *stamp in json.loads(noted) if noted else ():
            yield str(path), Stamp(*map(int, stamp)), str(content)
    except (ValueError, TypeError):  # damaged, or of another version of Flow
        return
