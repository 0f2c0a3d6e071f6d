"""Functions and buffers that came to this node: files in memory that belong to the manager and vanish with it.

Workers find them through an index, a file in memory of rows (digest, descriptor, size), and open them as
``/proc/<manager>/fd/<descriptor>``.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from flow_executors.wire.control import BlobPiece
from flow_executors.worker.unpack import INDEX_ROW

MAX_BYTES = 4 << 30
MAX_COUNT = 512


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


class _Blob:
    __slots__ = ("fd", "missing", "offsets", "size")

    def __init__(self, fd: int, size: int) -> None:
        self.fd = fd
        self.size = size
        self.missing = size
        self.offsets: set[int] = set()


class Blobs:
    """The blobs of one manager, the oldest dropped when there are too many. One thread."""

    def __init__(self, max_bytes: int = MAX_BYTES, max_count: int = MAX_COUNT) -> None:
        self._max_bytes = max_bytes
        self._max_count = max_count
        self._whole: dict[bytes, _Blob] = {}
        self._partial: dict[bytes, _Blob] = {}
        self.index_fd = memory_file("flow-index")

    def add(self, piece: BlobPiece) -> bool:
        """Take a piece; True when its blob is whole by now."""
        if piece.digest in self._whole:
            return True
        blob = self._partial.get(piece.digest)
        if blob is None or blob.size != piece.total:
            blob = self._partial[piece.digest] = _Blob(memory_file("flow-blob"), piece.total)
        if piece.offset not in blob.offsets:
            os.pwrite(blob.fd, piece.piece, piece.offset)
            blob.offsets.add(piece.offset)
            blob.missing -= len(piece.piece)
        if blob.missing > 0:
            return False
        self._whole[piece.digest] = self._partial.pop(piece.digest)
        evicted = self._evict()
        self._write_index()
        for old in evicted:  # only now: a number in the index must not come to name another file
            os.close(old.fd)
        return True

    def missing(self, digests: Sequence[bytes]) -> list[bytes]:
        """Return those that are not here, and count the others as used just now."""
        absent = []
        for digest in digests:
            blob = self._whole.pop(digest, None)
            if blob is None:
                absent.append(digest)
            else:
                self._whole[digest] = blob
        return absent

    def _evict(self) -> list[_Blob]:
        evicted = []
        total = sum(blob.size for blob in self._whole.values())
        while len(self._whole) > 1 and (total > self._max_bytes or len(self._whole) > self._max_count):
            blob = self._whole.pop(next(iter(self._whole)))
            total -= blob.size
            evicted.append(blob)
        return evicted

    def _write_index(self) -> None:
        rows = b"".join(INDEX_ROW.pack(digest, blob.fd, blob.size) for digest, blob in self._whole.items())
        os.pwrite(self.index_fd, rows, 0)
        os.ftruncate(self.index_fd, len(rows))

    def close(self) -> None:
        """Close all files."""
        for blob in (*self._whole.values(), *self._partial.values()):
            os.close(blob.fd)
        os.close(self.index_fd)
