"""Functions and buffers that came to this node, and the tasks that wait for those that have not.

Blobs are files in memory that belong to the manager and vanish with it. Small blobs share a file, large ones have one
each. Workers find them through an index, a file that only grows within one generation: u64 generation, then rows
(digest, descriptor, offset, size). They open ``/proc/<manager>/fd/<descriptor>``.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Sequence

from flow_executors.wire.messages import BlobPiece
from flow_executors.worker.unpack import GENERATION, INDEX_ROW

# Bytes of blobs that are kept; the oldest files are dropped beyond it.
MAX_BYTES = 4 << 30
# Bytes up to which blobs share a file: thousands of functions would need as many descriptors.
_SHARED = 1 << 20
# Bytes of a shared file before the next one is begun: files are dropped as a whole.
_FILE_BYTES = 64 << 20
# Blobs that are kept: of a function whose values change at each call there is one a call.
MAX_BLOBS = 16_384
_FILES = 4  # at least, so that what is dropped is a part of what there is


def memory_file(name: str, data: bytes | memoryview = b"") -> int:
    """Make a file in memory (else a nameless one in the temporary directory) and return its descriptor."""
    try:
        fd = os.memfd_create(name, os.MFD_CLOEXEC)
    except OSError:
        import tempfile

        fd = os.open(tempfile.gettempdir(), os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(fd, rest) :]
    except OSError:
        os.close(fd)
        raise
    return fd


class _BlobFile:
    """A file of blobs: digest -> (offset, size)."""

    __slots__ = ("blobs", "fd", "size")

    def __init__(self) -> None:
        self.fd = memory_file("flow-blobs")
        self.size = 0
        self.blobs: dict[bytes, tuple[int, int]] = {}


class _PartialBlob:
    """A blob of which pieces are missing."""

    __slots__ = ("file", "missing", "offsets", "total")

    def __init__(self, total: int) -> None:
        self.file = _BlobFile()
        self.total = total
        self.missing = total
        self.offsets: set[int] = set()


class BlobFiles:
    """The blobs of one manager; the oldest files are dropped when there is too much. One thread.

    Attributes:
        where: The file of each blob that is here. To be read only.
    """

    def __init__(self, max_bytes: int = MAX_BYTES, file_bytes: int = _FILE_BYTES, max_blobs: int = MAX_BLOBS) -> None:
        self._max_bytes = max_bytes
        self._max_blobs = max_blobs
        self._file_bytes = file_bytes
        self._files: list[_BlobFile] = []  # oldest first
        self._shared: _BlobFile | None = None
        self.where: dict[bytes, _BlobFile] = {}
        self._partial: dict[bytes, _PartialBlob] = {}
        self._generation = 1
        self._index_size = 0
        self.index_fd = memory_file("flow-index")
        self._write_index()

    def add(self, piece: BlobPiece) -> bool:
        """Take a piece; True when its blob is whole by now."""
        digest = piece.digest
        if digest in self.where:
            return True
        if len(piece.piece) == piece.total <= _SHARED:
            self._partial.pop(digest, None)
            self._keep(self._shared_file(piece.total), digest, piece.piece)
            return True
        partial = self._partial.get(digest)
        # A blob of another length under the same digest is sent anew from its beginning.
        if partial is None or partial.total != piece.total:
            partial = self._partial[digest] = _PartialBlob(piece.total)
        if piece.offset not in partial.offsets:
            os.pwrite(partial.file.fd, piece.piece, piece.offset)
            partial.offsets.add(piece.offset)
            partial.missing -= len(piece.piece)
        if partial.missing > 0:
            return False
        del self._partial[digest]
        self._files.append(partial.file)
        partial.file.size = piece.total
        self._note(partial.file, digest, 0, piece.total)
        self._drop_oldest()
        return True

    def _shared_file(self, size: int) -> _BlobFile:
        full = self._shared is None or self._shared.size + size > self._file_bytes
        if self._shared is None or full or len(self._shared.blobs) >= self._max_blobs // _FILES:
            self._shared = _BlobFile()
            self._files.append(self._shared)
            self._drop_oldest()
        return self._shared

    def _keep(self, file: _BlobFile, digest: bytes, content: memoryview) -> None:
        offset = file.size
        os.pwrite(file.fd, content, offset)
        file.size += len(content)
        self._note(file, digest, offset, len(content))

    def _note(self, file: _BlobFile, digest: bytes, offset: int, size: int) -> None:
        file.blobs[digest] = offset, size
        self.where[digest] = file
        row = INDEX_ROW.pack(digest, file.fd, offset, size)
        os.pwrite(self.index_fd, row, self._index_size)
        self._index_size += len(row)

    def missing(self, digests: Iterable[bytes]) -> list[bytes]:
        """Return those that are not here."""
        return [digest for digest in digests if digest not in self.where]

    def read(self, digest: bytes) -> bytes:
        """Return a blob that is here. Raises KeyError: it is not."""
        file = self.where[digest]
        offset, size = file.blobs[digest]
        pieces, at = [], 0
        while at < size:  # the kernel reads no more than 2 GiB at once
            pieces.append(os.pread(file.fd, size - at, offset + at))
            at += len(pieces[-1])
        return b"".join(pieces)

    def _drop_oldest(self) -> None:
        dropped = []
        while len(self._files) > 1 and self._too_much():
            file = self._files.pop(0)
            for digest in file.blobs:
                del self.where[digest]
            if file is self._shared:
                self._shared = None
            dropped.append(file)
        if dropped:
            self._generation += 1
            self._write_index()
            for file in dropped:  # only now: a number in the index must not come to name another file
                os.close(file.fd)

    def _too_much(self) -> bool:
        return len(self.where) > self._max_blobs or sum(file.size for file in self._files) > self._max_bytes

    def _write_index(self) -> None:
        rows = [GENERATION.pack(self._generation)]
        for file in self._files:
            rows += [INDEX_ROW.pack(digest, file.fd, *place) for digest, place in file.blobs.items()]
        content = b"".join(rows)
        # Workers that read meanwhile find less than a generation, and look again.
        os.ftruncate(self.index_fd, 0)
        os.pwrite(self.index_fd, content, 0)
        self._index_size = len(content)

    def close(self) -> None:
        """Close all files, the index too; workers that still look for a blob find it gone."""
        for file in (*self._files, *(partial.file for partial in self._partial.values())):
            os.close(file.fd)
        os.close(self.index_fd)


Batch = tuple[int, list[tuple[int, memoryview]]]
"""class id, (key, record) of each task"""


class TasksAwaitingCode:
    """Batches by what they wait for."""

    def __init__(self) -> None:
        self._waiting: list[tuple[set[bytes], Batch]] = []

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def park(self, missing: Iterable[bytes], batch: Batch) -> None:
        """Keep a batch until all of these blobs are here."""
        self._waiting.append((set(missing), batch))

    def arrived(self, digest: bytes) -> list[Batch]:
        """Return the batches that waited for this blob alone, in the order in which they came."""
        for missing, _ in self._waiting:
            missing.discard(digest)
        ready = [batch for missing, batch in self._waiting if not missing]
        self._waiting = [entry for entry in self._waiting if entry[0]]
        return ready

    def missing(self) -> set[bytes]:
        """Return what is waited for."""
        return set().union(*(missing for missing, _ in self._waiting))

    def remove(self, keys: Collection[int]) -> list[int]:
        """Take tasks out; return those that were here."""
        gone = [key for _, (_, tasks) in self._waiting for key, _ in tasks if key in keys]
        self._waiting = [
            (missing, (class_id, [task for task in tasks if task[0] not in keys]))
            for missing, (class_id, tasks) in self._waiting
        ]
        return gone

    def take_all(self) -> Sequence[Batch]:
        """Take out all batches, in the order in which they came."""
        batches = [batch for _, batch in self._waiting]
        self._waiting = []
        return batches

    def keys(self) -> list[int]:
        """Return the keys of what is here."""
        return [key for _, (_, tasks) in self._waiting for key, _ in tasks]
