"""Reading files into the stream of a transfer: small files together in one piece, large ones in many."""

from __future__ import annotations

import os
import stat
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from hashlib import blake2b

from flow_core.errors import StagingError
from flow_executors.wire.files import DIGEST_BYTES, PIECE_BYTES, body_digest, pack_head

_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
"""Without waiting: the open of a pipe at the place of a file would hang for as long as nobody writes to it."""


def open_plain(path: str, named: str) -> int:
    """Open a file for reading.

    Raises:
        StagingError: it is no regular file, or cannot be read.
    """
    try:
        descriptor = os.open(path, _READ)
    except OSError as error:
        raise StagingError(f"{named} cannot be read: {error.strerror or error}", named) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise StagingError(f"{named} is no regular file, and so cannot be sent", named)
    return descriptor


def bodies(wanted: Iterable[tuple[int, int, int, Callable[[], int], str]]) -> Iterator[bytes]:
    """Yield the stream of the bodies of entries, in pieces of PIECE_BYTES or less.

    Args:
        wanted: For each the entry, its size as it was listed, from where on, what opens it, and its name for messages.

    Raises:
        StagingError: a file is shorter by now, or cannot be read.
    """
    gathered = bytearray()
    for entry, size, offset, opened, named in wanted:
        offset = min(offset, size)
        descriptor = opened()
        try:
            gathered += pack_head(entry, offset, size - offset)
            if size - offset <= PIECE_BYTES - len(gathered) - DIGEST_BYTES:
                content = _read(descriptor, size - offset, offset, named) if size > offset else b""
                gathered += content
                gathered += body_digest(content)
            else:
                digest, at = blake2b(digest_size=DIGEST_BYTES), offset
                while at < size:
                    content = _read(descriptor, min(size - at, PIECE_BYTES - len(gathered)), at, named)
                    digest.update(content)
                    at += len(content)
                    if gathered:
                        gathered += content
                        content = bytes(gathered)
                        gathered.clear()
                    yield content
                gathered += digest.digest()
        finally:
            os.close(descriptor)
        if len(gathered) > PIECE_BYTES // 2:
            yield bytes(gathered)
            gathered.clear()
    if gathered:
        yield bytes(gathered)


def _read(descriptor: int, count: int, at: int, named: str) -> bytes:
    try:
        content = os.pread(descriptor, count, at)
        while len(content) < count:
            more = os.pread(descriptor, count - len(content), at + len(content))
            if not more:
                raise StagingError(f"{named} became shorter while it was sent", named)
            content += more
    except OSError as error:
        raise StagingError(f"{named} cannot be read: {error.strerror or error}", named) from error
    return content


class PieceQueue:
    """What is to be sent of one transfer, cut to the room that there is. One thread."""

    __slots__ = ("_rest", "_sources")

    def __init__(self, *sources: Iterator[bytes]) -> None:
        self._sources = deque(sources)
        self._rest = b""

    def add(self, source: Iterator[bytes]) -> None:
        """Send this, too, after what is there."""
        self._sources.append(source)

    def take(self, most: int) -> bytes:
        """Return the next bytes; none where there is nothing to send at present. Raises StagingError as ``bodies``."""
        while not self._rest and self._sources:
            self._rest = next(self._sources[0], b"")
            if not self._rest:
                self._sources.popleft()
        piece, self._rest = self._rest[:most], self._rest[most:]
        return piece
