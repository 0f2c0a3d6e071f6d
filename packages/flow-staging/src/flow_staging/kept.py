"""List and removal of kept files: the contents of the cache of fetched files, as users see them."""

from __future__ import annotations

import fcntl
import os
from dataclasses import dataclass
from pathlib import Path

from flow_core.errors import StagingError
from flow_staging.transfer.cache_place import own_root, shared_root
from flow_staging.transfer.cache_record import Record
from flow_staging.transfer.cache_room import KEY_SUFFIX, contents, evict
from flow_staging.transfer.failures import PermanentTransferError


@dataclass(frozen=True, slots=True)
class KeptFile:
    """One URL of which something is kept.

    Attributes:
        url: The URL, without password; empty where it is not known.
        versions: How many whole versions there are.
        bytes: Space that it takes on disk, what has come of a further version included.
        used: When it was used last, in seconds of the epoch.
        in_use: Whether someone is fetching or using it at this moment.
    """

    url: str
    versions: int
    bytes: int
    used: float
    in_use: bool = False


def place() -> Path:
    """Return the directory in which this user's files are kept.

    Raises:
        StagingError: ``FLOW_CACHE`` is no absolute path.
    """
    try:
        shared = shared_root()
    except PermanentTransferError as error:
        raise StagingError(str(error)) from error
    return own_root() if shared is None else shared / str(os.getuid())


def kept(directory: Path | None = None) -> list[KeptFile]:
    """List what is kept in a directory, this user's by default; the longest unused first.

    Of URLs that could not be fetched, only those are listed of which a part is there to be gone on with.
    """
    root = place() if directory is None else directory
    found = []
    for one in contents(root):
        url, versions, in_use = _said(root / f"{one.key}{KEY_SUFFIX}")
        if versions or in_use or any(not name.endswith(KEY_SUFFIX) for name in one.names):
            found.append(KeptFile(url, versions, one.bytes, one.used, in_use))
    return sorted(found, key=lambda one: one.used)


def clear(directory: Path | None = None, unused_s: float = 0.0) -> tuple[int, int]:
    """Remove entries that are not in use and were not used for so many seconds.

    Files of tasks stay as they are. Returns how many URLs were removed, and how many bytes.
    """
    root = place() if directory is None else directory
    gone = [one.bytes for one in list(contents(root)) if evict(root, one, unused_s)]
    return len(gone), sum(gone)


def _said(path: Path) -> tuple[str, int, bool]:
    """Return URL and number of versions that a record says, and whether it is in use."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return "", 0, False
    try:
        record = Record.read(fd, os.fstat(fd).st_size)
        return record.url, len(record.versions), _is_held(fd)
    finally:
        os.close(fd)


def _is_held(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # a file system without locks
        return False
    fcntl.flock(fd, fcntl.LOCK_UN)
    return False
