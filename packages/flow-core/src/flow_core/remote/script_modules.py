"""Files of the script's own modules on a node that does not see them: brought when they are imported, by digest.

With a function comes the digest of a list of the modules (``ListedModule``). What is imported from then on is looked
for in the newest list first. Where the script's own file is here too, it is taken, at its path. Else the module's files
are asked for, once a node, and kept in its cache, whole packages at once, with their data files: so tracebacks have
source lines, and ``importlib.resources`` finds what lies beside the code.
"""

from __future__ import annotations

import fcntl
import os
import pickle
import sys
import threading
import time
import zlib
from hashlib import blake2b
from importlib.machinery import PathFinder
from typing import NamedTuple

from flow_core.errors import DeserializationError
from flow_core.remote.fetching import fetched
from flow_core.remote.node_cache import cache_directory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

_KEPT_S = 14 * 86400.0  # seconds after its last use that a module's files stay in the cache of a node
_DIGEST_SIZE = 16  # bytes, as all names of blobs
_READY = ".flow-ready"
_USED = ".flow-used"


class ListedModule(NamedTuple):
    """A top-level module or package of the script's own.

    Attributes:
        digest: Of the blob with its files (``pack_files``).
        origin: Path of the file that is imported, in the script; empty for a package without one.
        origin_digest: Digest of what is in that file.
    """

    digest: bytes
    origin: str
    origin_digest: bytes


def content_digest(content: bytes) -> bytes:
    """Return the digest of what is in a file."""
    return blake2b(content, digest_size=_DIGEST_SIZE).digest()


def pack_list(number: int, modules: Mapping[str, ListedModule]) -> bytes:
    """Return the blob of a list; of two lists the one with the higher number is the newer."""
    return pickle.dumps((number, {name: tuple(one) for name, one in modules.items()}), 5)


def pack_files(files: Mapping[str, bytes]) -> bytes:
    """Return the blob of a module's files, by their paths below the directory that is to be on the path."""
    return zlib.compress(pickle.dumps(sorted(files.items()), 5), 1)


class _Finder:
    """Finds what the newest list names. Its place is before all others: the script's module is meant by its name."""

    def __init__(self) -> None:
        self.number = -1
        self.modules: dict[str, ListedModule] = {}
        self._places: dict[bytes, str] = {}
        self._held: list[int] = []
        self._lock = threading.Lock()

    def take(self, number: int, modules: dict[str, ListedModule]) -> None:
        """Use a list from now on if it is the newest."""
        if number > self.number:
            self.number, self.modules = number, modules

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return where a module of the list is. DeserializationError: its files cannot be had."""
        listed = self.modules.get(fullname)
        if listed is None or path is not None:
            return None
        place = os.path.dirname(listed.origin) if _is_here(listed) else self._place(fullname, listed.digest)
        if os.path.basename(listed.origin) == "__init__.py" and place == os.path.dirname(listed.origin):
            place = os.path.dirname(place)
        return PathFinder.find_spec(fullname, [place], target)

    def _place(self, name: str, digest: bytes) -> str:
        with self._lock:
            place = self._places.get(digest)
            if place is None:
                place = self._places[digest] = self._brought(name, digest)
                # For processes that a task starts: multiprocessing hands them this path.
                sys.path.append(place)
            return place

    def _brought(self, name: str, digest: bytes) -> str:
        root = _cache(name)
        place = os.path.join(root, digest.hex())
        if not os.path.exists(os.path.join(place, _READY)):
            blob = fetched(digest)
            with open(os.path.join(root, ".lock"), "w") as lock:
                _locked(lock.fileno(), fcntl.LOCK_EX)
                if not os.path.exists(os.path.join(place, _READY)):
                    _write(place, blob)
                    _clean(root, place)
        # Held until this process ends: what is in use is not removed.
        self._held.append(used := os.open(os.path.join(place, _USED), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
        _locked(used, fcntl.LOCK_SH)
        os.utime(place)
        return place


_finder: _Finder | None = None
_known: set[bytes] = set()


def install(digest: bytes) -> None:
    """Import from the list of this digest from now on, unless a newer one came before.

    Raises:
        DeserializationError: the list cannot be had.
    """
    global _finder
    if digest in _known:
        return
    number, modules = pickle.loads(fetched(digest))
    if _finder is None:
        _finder = _Finder()
        sys.meta_path.insert(0, _finder)
    _finder.take(number, {name: ListedModule(*one) for name, one in modules.items()})
    _known.add(digest)


def _is_here(listed: ListedModule) -> bool:
    """Tell whether this machine has the script's own file, and it is the same."""
    try:
        with open(listed.origin, "rb") as file:
            return content_digest(file.read()) == listed.origin_digest
    except (OSError, ValueError):
        return False


def _cache(name: str) -> str:
    """Return the directory of modules' files in this node's cache."""
    try:
        return cache_directory("code")
    except OSError as error:
        raise DeserializationError(
            f"the module {name!r} of the script has no place on node {os.uname().nodename}: {error}"
        ) from error


def _locked(descriptor: int, how: int) -> bool:
    try:
        fcntl.flock(descriptor, how)
    except OSError:  # held by others, or a file system without locks
        return False
    return True


def _write(place: str, blob: bytes) -> None:
    import shutil  # with its archives it takes as long to load as all else that packs code

    shutil.rmtree(place, ignore_errors=True)
    for name, content in pickle.loads(zlib.decompress(blob)):
        path = os.path.join(place, name)
        os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
        with open(path, "wb") as file:
            file.write(content)
    with open(os.path.join(place, _READY), "w"):
        pass


def _clean(root: str, mine: str) -> None:
    """Remove files that no process uses, and none has used for long."""
    import shutil

    for name in os.listdir(root):
        place = os.path.join(root, name)
        try:
            if place == mine or not os.path.isdir(place) or os.stat(place).st_mtime > time.time() - _KEPT_S:
                continue
            used = os.open(os.path.join(place, _USED), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                if _locked(used, fcntl.LOCK_EX | fcntl.LOCK_NB):
                    shutil.rmtree(place, ignore_errors=True)
            finally:
                os.close(used)
        except OSError:
            continue
