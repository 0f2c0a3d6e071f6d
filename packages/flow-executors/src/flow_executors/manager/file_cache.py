"""Files of the script's machine that are kept on a node, by what they hold, so that each comes once. One thread."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
import stat
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from hashlib import blake2b

from flow_executors.wire.files import DIGEST_BYTES
from flow_executors.wire.kinds import Buffer

# The ioctl by which a file system gives a second file the blocks of a first, which part when one is written to.
_FICLONE = 0x40049409
# Bytes that are kept, the longest unused go first. Those that tasks have just now stay theirs, as links.
MOST_BYTES = 10 << 30
_MOST_FILES = 200_000
# Bytes of one file of small ones, and how many of these there are; the oldest goes first.
_PACK_BYTES = 256 << 20
_PACKS = 4
_NAME = re.compile(r"[0-9a-f]{32}-[0-7]{1,3}")


class SmallFiles:
    """Contents of small files by version, one after the other in a few files without names. One thread."""

    def __init__(self, directory: str, pack_bytes: int = _PACK_BYTES) -> None:
        self._directory = directory
        self._most = pack_bytes
        self._packs: list[tuple[int, dict[str, tuple[int, int]]]] = []  # descriptor, version -> offset and size
        self._end = 0

    def keep(self, content: Buffer, versions: Iterable[tuple[str, int]]) -> None:
        """Keep contents that lie one after the other: version and size of each; an empty version is not kept.

        Raises:
            OSError: there is no room; none of them is kept.
        """
        size = len(memoryview(content))
        if not self._packs or self._end + size > self._most:
            self._begin()
        descriptor, known = self._packs[-1]
        if os.pwrite(descriptor, content, self._end) < size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        for version, one in versions:
            if version:
                known[version] = (self._end, one)
            self._end += one

    def find(self, version: str) -> bytes | None:
        """Return the content of a version; None if it is not kept."""
        for descriptor, known in self._packs:
            found = known.get(version)
            if found is not None:
                return os.pread(descriptor, found[1], found[0])
        return None

    def _begin(self) -> None:
        if len(self._packs) == _PACKS:
            os.close(self._packs.pop(0)[0])
        path = os.path.join(self._directory, "pack")
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        os.unlink(path)  # its blocks go with the descriptor, whatever ends this process
        self._packs.append((descriptor, {}))
        self._end = 0

    def close(self) -> None:
        """Let go of all of it."""
        while self._packs:
            os.close(self._packs.pop()[0])


def _is_locked(path: str) -> bool:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return False


class FileCache:
    """Files named by the digest of their content, below one directory. One thread.

    What other managers of the run have on this node, in directories beside that of this one, is taken from there by
    hard links. A symbolic link whose name stands for run and version says which file that is, its size and the time
    of its last change: made at once, read at once, and gone with the directory of its manager. What one lets go of
    stays with the others.

    Args:
        directory: Where: ``RESERVED/MANAGER/cache``.
        most_bytes: Bytes that are kept.
        run: Id of the run, since versions are those of one script's machine; empty: nothing is shared.

    Attributes:
        small: Contents of small files, which are not shared.
    """

    def __init__(self, directory: str, most_bytes: int = MOST_BYTES, run: str = "") -> None:
        self._directory = directory
        self._run = run
        self._claims: dict[str, int] = {}  # name -> descriptor of its lock
        self._most = most_bytes
        self._kept: OrderedDict[str, tuple[int, int]] = OrderedDict()  # name -> size, time of the last change
        self._versions: dict[str, str] = {}  # version -> name
        self._size = 0
        self._parts = 0
        self._clones = True
        os.mkdir(directory, 0o700)
        self.small = SmallFiles(directory)

    def part(self) -> str:
        """Return the path of a file that is to be kept once it is whole."""
        self._parts += 1
        return os.path.join(self._directory, f"{self._parts}.part")

    def keep(self, part: str, digest: bytes, mode: int, version: str) -> str:
        """Take a whole file in and return where it is."""
        # Of its own name by mode as well: links of one file have one mode.
        name = f"{digest.hex()}-{mode & 0o777:o}"
        path = os.path.join(self._directory, name)
        if self._find(name) is None:
            os.chmod(part, (mode & 0o777) | 0o400)
            os.rename(part, path)
            state = os.stat(path)
            self._kept[name] = (state.st_size, state.st_mtime_ns)
            self._size += state.st_size
        else:
            os.unlink(part)
        if version:
            self._versions[version] = name
            self._offer(version, name)
        self._shrink(name)
        return path

    def find(self, version: str, mode: int) -> str | None:
        """Return where the file of a version is kept, with the permissions of a task's; None if it is not."""
        name = self._versions.get(version) if version else None
        if name is None or not name.endswith(f"-{mode & 0o777:o}"):
            return None
        return self._find(name)

    def adopt(self, version: str, mode: int, size: int) -> str | None:
        """Return where the file of a version is kept, after it was taken from another manager; None if none has it."""
        if not self._run or not version:
            return None
        for other in self._others():
            try:
                name, *state = os.readlink(os.path.join(other, self._offered(version, mode))).split("/")
                known = int(state[0]), int(state[1])
            except (OSError, ValueError, IndexError):
                continue
            if not _NAME.fullmatch(name) or known[0] != size:
                continue
            path = os.path.join(self._directory, name)
            if self._find(name) is None:
                if not self._linked(os.path.join(other, name), path, known):
                    continue
                self._kept[name] = known
                self._size += size
            self._versions[version] = name
            self._offer(version, name)
            self._shrink(name)
            return path
        return None

    def claim(self, version: str, mode: int) -> bool:
        """Whether this manager is to bring the file of a version; False while another of the node does, or may.

        The claim is a file with a lock, which goes with its process. It is made before the others are looked for, so of
        two that claim at once one sees the other at least; who does gives way, and is to try again after a moment.
        """
        if not self._run or not version:
            return True
        name = f"c-{self._offered(version, mode)}"
        if name in self._claims:
            return True
        try:
            lock = os.open(os.path.join(self._directory, name), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:
            return True
        self._claims[name] = lock
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:  # another looks at it just now
            self.release(version, mode)
            return False
        except OSError:  # a file system without locks: each brings it
            return True
        if any(_is_locked(os.path.join(other, name)) for other in self._others()):
            self.release(version, mode)
            return False
        return True

    def release(self, version: str, mode: int) -> None:
        """Let go of a claim, if there is one."""
        name = f"c-{self._offered(version, mode)}"
        lock = self._claims.pop(name, -1)
        if lock >= 0:
            try:
                os.unlink(os.path.join(self._directory, name))
            except OSError:
                pass
            os.close(lock)

    def _others(self) -> Iterator[str]:
        reserved, own = os.path.split(os.path.dirname(self._directory))
        try:
            names = os.listdir(reserved)
        except OSError:
            return
        for name in names:
            if name != own and not name.endswith(".lock"):
                yield os.path.join(reserved, name, os.path.basename(self._directory))

    def _linked(self, source: str, path: str, known: tuple[int, int]) -> bool:
        try:
            os.link(source, path, follow_symlinks=False)
            state = os.lstat(path)
            # As it was when its content was compared: a task may have written into its input, which is a link of it.
            if stat.S_ISREG(state.st_mode) and (state.st_size, state.st_mtime_ns) == known:
                return True
            os.unlink(path)
        except OSError:
            pass  # gone meanwhile, or a file system without hard links: it is brought
        return False

    def _offer(self, version: str, name: str) -> None:
        if not self._run:
            return
        link = os.path.join(self._directory, self._offered(version, int(name.rpartition("-")[2], 8)))
        size, changed = self._kept[name]
        try:
            if os.path.lexists(link):
                os.unlink(link)
            os.symlink(f"{name}/{size}/{changed}", link)
        except OSError:
            pass  # a file system without links: other managers bring it themselves

    def _offered(self, version: str, mode: int) -> str:
        text = f"{self._run} {version} {mode & 0o777:o}"
        return f"v-{blake2b(text.encode(), digest_size=DIGEST_BYTES).hexdigest()}"

    def _find(self, name: str) -> str | None:
        known = self._kept.get(name)
        if known is None:
            return None
        path = os.path.join(self._directory, name)
        try:
            state = os.stat(path)
        except OSError:
            state = None
        # An app may have written into its input, which is a link of this.
        if state is None or (state.st_size, state.st_mtime_ns) != known:
            self._drop(name)
            return None
        self._kept.move_to_end(name)
        return path

    def _drop(self, name: str) -> None:
        size, _ = self._kept.pop(name)
        self._size -= size
        try:
            os.unlink(os.path.join(self._directory, name))
        except OSError:
            pass

    def _shrink(self, newest: str) -> None:
        while (self._size > self._most or len(self._kept) > _MOST_FILES) and len(self._kept) > 1:
            oldest = next(iter(self._kept))
            if oldest == newest:
                self._kept.move_to_end(newest)
                continue
            self._drop(oldest)
        if len(self._versions) > 2 * _MOST_FILES:
            self._versions = {version: name for version, name in self._versions.items() if name in self._kept}

    def give(self, path: str, place: str, own: bool) -> None:
        """Put a kept file at the place of a task: as a link, or as a copy of the task's ``own``. Raises OSError."""
        if self._clones and self._cloned(path, place):
            return
        if not own:
            try:
                os.link(path, place)
                return
            except FileExistsError:
                return
            except OSError as error:
                if error.errno not in (errno.EMLINK, errno.EXDEV, errno.EPERM, errno.ENOTSUP):
                    raise
        shutil.copyfile(path, place)
        os.chmod(place, os.stat(path).st_mode & 0o777 | 0o600 if own else os.stat(path).st_mode)

    def _cloned(self, path: str, place: str) -> bool:
        with open(path, "rb") as source, open(place, "wb") as target:
            try:
                fcntl.ioctl(target.fileno(), _FICLONE, source.fileno())
            except OSError:
                self._clones = False
                os.unlink(place)
                return False
            os.fchmod(target.fileno(), os.fstat(source.fileno()).st_mode & 0o777 | 0o200)
        return True
