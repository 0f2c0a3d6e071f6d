"""Zip archives that stay open between members: the directory of a large one takes longer to read than most members."""

from __future__ import annotations

import contextlib
import os
import threading
import time
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import IO, BinaryIO

from flow_staging.transfer.failures import PermanentTransferError

_SETTLED_NS = 2_000_000_000  # a file that changed later might change again without a new time

Version = tuple[int, int, int, int, int]


class OpenArchives:
    """Keeps the archives that were read last open, each as long as its file is the same version. Any thread.

    Versions are compared by device, inode, size and times of change, so the archive must be locked against writers
    while it is used. One that changed within the last two seconds is not kept: by the time that the file system sets
    itself, since the other one may be set to any date, as by what unpacks or copies archives.
    """

    def __init__(self, limit: int = 4) -> None:
        """Take how many are kept open at most."""
        self._limit = limit
        self._lock = threading.Lock()
        self._kept: OrderedDict[Path, tuple[Version, zipfile.ZipFile]] = OrderedDict()

    @contextlib.contextmanager
    def reading(self, path: Path, locked: BinaryIO) -> Iterator[zipfile.ZipFile]:
        """Give the archive at a path for reading; ``locked`` is its file, on which the caller holds a lock.

        Raises:
            PermanentTransferError: it is no zip archive.
            OSError: it cannot be read.
        """
        version = _version(locked)
        archive = self._take(path, version)
        if archive is None:
            archive = opened(path)
        try:
            yield archive
        except BaseException:
            archive.close()
            raise
        self._keep(path, version, archive)

    def close(self) -> None:
        """Close all kept archives; those in use are closed by their users."""
        with self._lock:
            kept, self._kept = self._kept, OrderedDict()
        for _, archive in kept.values():
            archive.close()

    def _take(self, path: Path, version: Version) -> zipfile.ZipFile | None:
        with self._lock:
            # Taken out while it is used: a ZipFile is for one thread.
            known, archive = self._kept.pop(path, (None, None))
        if archive is None or known == version:
            return archive
        archive.close()
        return None

    def _keep(self, path: Path, version: Version, archive: zipfile.ZipFile) -> None:
        stream = archive.fp
        settled = time.time_ns() - version[-1] > _SETTLED_NS
        gone = [archive]
        # Kept only if the open file still is the locked one, and has not changed just now.
        if settled and stream is not None and _version(stream) == version:
            with self._lock:
                gone = [old for _, old in [self._kept.pop(path, (None, None))] if old is not None]
                self._kept[path] = (version, archive)
                while len(self._kept) > self._limit:
                    gone.append(self._kept.popitem(last=False)[1][1])
        for old in gone:
            old.close()


def opened(path: Path) -> zipfile.ZipFile:
    """Return the archive at a path. Raises PermanentTransferError if it is none, OSError if it cannot be read."""
    try:
        return zipfile.ZipFile(path)
    except zipfile.BadZipFile as error:
        raise PermanentTransferError(f"{path} is no zip archive: {error}") from error


def _version(stream: IO[bytes]) -> Version:
    found = os.fstat(stream.fileno())
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
