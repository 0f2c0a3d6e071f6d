"""Files on their way: read into the stream of a transfer, small ones together in one piece; and written from it."""

from __future__ import annotations

import errno
import os
import stat
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from hashlib import blake2b

from flow_core.errors import StagingError
from flow_executors.wire.files import DIGEST_BYTES, PIECE_BYTES, body_digest, pack_head, pack_small, small_room

_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
"""Without waiting: the open of a pipe at the place of a file would hang for as long as nobody writes to it."""


class LinkThere(Exception):
    """There is a link at the place of a file."""


def open_plain(path: str, named: str, *, through_links: bool = True) -> int:
    """Open a file for reading.

    Raises:
        StagingError: it is no regular file, or cannot be read.
        LinkThere: it is a link, and ``through_links`` is false.
    """
    try:
        descriptor = os.open(path, _READ if through_links else _READ | os.O_NOFOLLOW)
    except OSError as error:
        if error.errno == errno.ELOOP and not through_links:
            raise LinkThere(path) from None
        raise _unreadable(named, error) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise StagingError(f"{named} is no regular file, and so cannot be sent", named)
    return descriptor


def packs(wanted: Iterable[tuple[int, int, Callable[[], int], str]]) -> Iterator[bytes]:
    """Yield the records of whole small files, as many in each as a piece has room for.

    Args:
        wanted: For each the entry, its size as it was listed, what opens it, and its name for messages.

    Raises:
        StagingError: a file is shorter by now, or cannot be read.
    """
    files: list[tuple[int, int]] = []
    room, used = memoryview(bytearray(PIECE_BYTES)), 0
    for entry, size, opened, named in wanted:
        if used + size > small_room(len(files) + 1):
            yield pack_small(files, room[:used])
            files, used = [], 0
        descriptor = opened()
        try:
            _read_into(descriptor, room[used : used + size], named)
        finally:
            os.close(descriptor)
        files.append((entry, size))
        used += size
    if files:
        yield pack_small(files, room[:used])


def _read_into(descriptor: int, room: memoryview, named: str) -> None:
    try:
        at = os.readv(descriptor, [room])
        while at < len(room):
            count = os.readv(descriptor, [room[at:]])
            if not count:
                raise _shorter(named)
            at += count
    except OSError as error:
        raise _unreadable(named, error) from error


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
            if not offset and size <= PIECE_BYTES - len(gathered) - DIGEST_BYTES:
                content = _read(descriptor, size, 0, named) if size else b""
                gathered += content
                gathered += body_digest(content)
            else:
                digest, at = _digest_before(descriptor, offset, named), offset
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


def _digest_before(descriptor: int, end: int, named: str) -> blake2b:
    """Return the digest of what lies before an offset, which the other side has."""
    digest = blake2b(digest_size=DIGEST_BYTES)
    for at in range(0, end, PIECE_BYTES):
        digest.update(_read(descriptor, min(end - at, PIECE_BYTES), at, named))
    return digest


def _shorter(named: str) -> StagingError:
    return StagingError(f"{named} became shorter while it was sent", named)


def _unreadable(named: str, error: OSError) -> StagingError:
    return StagingError(f"{named} cannot be read: {error.strerror or error}", named)


def _read(descriptor: int, count: int, at: int, named: str) -> bytes:
    try:
        content = os.pread(descriptor, count, at)
        while len(content) < count:
            more = os.pread(descriptor, count - len(content), at + len(content))
            if not more:
                raise _shorter(named)
            content += more
    except OSError as error:
        raise _unreadable(named, error) from error
    return content


class ComingFile:
    """A file that is written as it comes, with the digest of what has come. One thread.

    It is made: where anything lies at its place, a link too, it is refused.

    Attributes:
        path: Where it lies.
        size: Bytes that have come.
    """

    __slots__ = ("_descriptor", "_digest", "path", "size")

    def __init__(self, path: str) -> None:
        """Make the file. Raises OSError."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        self._descriptor = os.open(path, flags, 0o600)
        self._digest = blake2b(digest_size=DIGEST_BYTES)
        self.path = path
        self.size = 0

    def write(self, content: memoryview) -> None:
        """Write the next bytes. Raises OSError."""
        while len(content):
            count = os.write(self._descriptor, content)
            self._digest.update(content[:count])
            self.size += count
            content = content[count:]

    def is_whole(self, size: int, digest: bytes) -> bool:
        """Tell whether so many bytes have come, of this digest."""
        return self.size == size and self._digest.digest() == digest

    def close(self, mode: int | None = None) -> None:
        """End writing, and give the file these permissions. Raises OSError."""
        try:
            if mode is not None:
                os.fchmod(self._descriptor, mode)
        finally:
            os.close(self._descriptor)


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
