"""Rsync batches of small files: the submit side keeps lists of awaited files, and a node brings all of a list at once.

A login and two processes a file take a hundred times as long as a small file itself. A node knows only the task that it
runs, so the lists are on the submit side, where the node's rsync reads them itself (``--files-from=:LIST``).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import stat
import tempfile
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from flow_core.own_files import take_own_directory
from flow_staging.transfer.cache_place import BESIDE
from flow_staging.transfer.failures import TransientTransferError
from flow_staging.transfer.locking import locked
from flow_staging.transfer.publish import Partial, duplicate
from flow_staging.transfer.retry import Control

SMALL = 64 << 10
"""Bytes; larger files go one by one, since a list brings also the files that only other nodes' tasks need."""
_MOST_NAMES, _MOST_BYTES = 1000, 32 << 20  # of one list
_LISTS = 100  # lists kept; older ones are removed, and their files go one by one
_KEPT = 20_000  # files on a node, after which it begins anew
_REST_S = 60.0  # seconds without lists after one could not be used: each try costs a login
_PARTLY = (0, 23, 24)  # some files of the list could not be read, or have vanished
_OPTIONS = (
    "--protect-args", "--copy-links", "--executability", "--times", "--modify-window=-1", "--from0", "--no-dirs",
    "--no-implied-dirs", f"--max-size={SMALL}", "--out-format=%l",
)  # fmt: skip

Run = Callable[[Sequence[str], Control], tuple[int, str]]
"""Runs rsync with arguments; returns its exit code and what it printed.

Raises TransientTransferError or PermanentTransferError.
"""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A file that a task waits for.

    Attributes:
        path: On the submit side.
        version: Size and time of change when the task was planned; empty if it was no plain file then.
        listed: The list that it is in, on the submit side; empty if it is in none.
    """

    path: str
    version: str = ""
    listed: str = ""

    @property
    def size(self) -> int:
        """The size then, in bytes; 0 where there is no version."""
        return int(self.version.partition(":")[0] or 0)


class WaitingLists:
    """Notes on the submit side what tasks wait for. Any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._root = ""
        self._lists: deque[str] = deque()
        self._in_list: dict[str, str] = {}
        self._bytes = 0
        self._count = 0

    def want(self, path: str) -> Wanted:
        """Note a file, if it is small. Never raises: without a list it goes alone."""
        try:
            state = os.stat(path)
        except (OSError, ValueError):
            return Wanted(path)
        if not stat.S_ISREG(state.st_mode):
            return Wanted(path)
        version = version_of(state)
        # Names end with a zero byte in a list.
        if state.st_size > SMALL or "\0" in path:
            return Wanted(path, version)
        with self._lock:
            try:
                return Wanted(path, version, self._in_list.get(path) or self._add(path, state.st_size))
            except OSError:
                return Wanted(path, version)

    def close(self) -> None:
        """Remove the lists. May be used again."""
        with self._lock:
            root, self._root = self._root, ""
            self._lists.clear()
            self._in_list.clear()
        if root:
            shutil.rmtree(root, ignore_errors=True)

    def _add(self, path: str, size: int) -> str:
        if not self._root:
            self._root = _own_directory()
            weakref.finalize(self, _remove_own, self._root, os.getpid())  # also where the method is never closed
        if not self._lists or len(self._in_list) >= _MOST_NAMES or self._bytes + size > _MOST_BYTES:
            self._begin()
        found = self._lists[-1]
        # O_APPEND and one write: a node that reads the list meanwhile sees whole names.
        fd = os.open(found, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, os.fsencode(path) + b"\0")
        finally:
            os.close(fd)
        self._in_list[path] = found
        self._bytes += size
        return found

    def _begin(self) -> None:
        self._count += 1
        self._lists.append(os.path.join(self._root, str(self._count)))
        self._in_list.clear()
        self._bytes = 0
        if len(self._lists) > _LISTS:  # a node that still wants one of its files brings that alone
            with contextlib.suppress(OSError):
                os.unlink(self._lists.popleft())


def _own_directory() -> str:
    """Make a directory for lists, and remove those of processes of this user and machine that were killed."""
    mark = f"flow-lists-{os.getuid()}-{os.uname().nodename}-"
    with contextlib.suppress(OSError), os.scandir(tempfile.gettempdir()) as found:
        for each in found:
            pid = each.name.removeprefix(mark).partition("-")[0]
            if each.name.startswith(mark) and pid.isdigit() and not _lives(int(pid)):
                shutil.rmtree(each.path, ignore_errors=True)
    return tempfile.mkdtemp(prefix=f"{mark}{os.getpid()}-")


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _remove_own(root: str, pid: int) -> None:
    if os.getpid() == pid:  # a forked process has it, too
        shutil.rmtree(root, ignore_errors=True)


def version_of(state: os.stat_result) -> str:
    """Return the version of a file: its size and its time of change, which rsync keeps."""
    return f"{state.st_size}:{state.st_mtime_ns}"


class Mirror:
    """The small files of one submit side that a node has, below the paths that they have there.

    Any thread, any process of the node.
    """

    def __init__(self, home: Path, side: str) -> None:
        """Take the directory that staged files belong to, and what names the submit side."""
        digest = hashlib.blake2b(os.fsencode(side), digest_size=8).hexdigest()
        self._root = os.path.join(home, BESIDE, f"rsync-{digest}")
        self._side = side

    def place(self, wanted: Wanted, path: Path, run: Run, control: Control) -> bool:
        """Put a file of a list at a path, with all others of that list if it is not here yet.

        Returns:
            Whether it is there; if not, it did not come in the version that was planned, or lists cannot be used.

        Raises:
            PermanentTransferError: the deadline passed, or the path cannot be written.
        """
        # Without the lock first: mostly another task of the node has brought it.
        if self._placed(wanted, path):
            return True
        if time.monotonic() < _resting.get(self._root, 0.0):
            return False
        with self._alone(control) as alone:
            if alone and (
                self._placed(wanted, path) or (self._bring(wanted, run, control) and self._placed(wanted, path))
            ):
                return True
        return False

    def _placed(self, wanted: Wanted, path: Path) -> bool:
        try:
            self._check_own()
            with open(f"{self._root}/files{wanted.path}", "rb", buffering=0) as source:
                if version_of(os.fstat(source.fileno())) != wanted.version:
                    return False
                with Partial(path) as part:
                    duplicate(source, part)
                    part.publish()
        except OSError:
            return False
        return True

    def _check_own(self) -> None:
        """Raise OSError if another user can have put files here, or can from now on."""
        take_own_directory(os.path.dirname(self._root))
        take_own_directory(self._root)
        take_own_directory(f"{self._root}/files")

    @contextlib.contextmanager
    def _alone(self, control: Control) -> Iterator[bool]:
        """Let one at a time bring files; gives False where there are no locks."""
        try:
            os.makedirs(f"{self._root}/files", exist_ok=True)
            self._check_own()
            fd, _ = locked(f"{self._root}/lock", control)
        except OSError:
            yield False
            return
        try:
            yield True
        finally:
            os.close(fd)

    def _bring(self, wanted: Wanted, run: Run, control: Control) -> bool:
        self._make_room()
        arguments = [*_OPTIONS, f"--files-from=:{wanted.listed}", "--", f"{self._side}:/", f"{self._root}/files/"]
        try:
            code, out = run(arguments, control)
        except TransientTransferError:
            code, out = -1, ""
        # No login, or no right to read the list: files go one by one for a while.
        if code not in _PARTLY:
            _resting[self._root] = time.monotonic() + _REST_S
            return False
        with contextlib.suppress(OSError), open(f"{self._root}/count", "ab") as count:
            count.write(b"x" * out.count("\n"))
        return True

    def _make_room(self) -> None:
        with contextlib.suppress(OSError):
            if os.stat(f"{self._root}/count").st_size > _KEPT:
                shutil.rmtree(f"{self._root}/files", ignore_errors=True)
                os.unlink(f"{self._root}/count")
                os.makedirs(f"{self._root}/files", exist_ok=True)


_resting: dict[str, float] = {}
"""Mirrors of this process whose lists could not be used, with when that is tried again."""
