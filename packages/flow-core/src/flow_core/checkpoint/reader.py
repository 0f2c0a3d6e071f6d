"""Reader of a checkpoint: records in order, values on demand, damage reported and stepped over or cut.

A run that was killed leaves at most one torn record at the end of its file; everything before it is read. Reading never
changes a file.
"""

from __future__ import annotations

import os
import pickle
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from zlib import crc32

from flow_core.checkpoint.record import (
    FILE_HEADER_BYTES,
    FILE_NAME,
    META_SIZE_BYTES,
    RECORD_HEAD_BYTES,
    Head,
    Meta,
    check_file_header,
    unpack_head,
    unpack_meta,
    unpack_meta_size,
)
from flow_core.errors import BadCheckpoint
from flow_core.own_files import NotOwnFile, open_own

_CHUNK = 1 << 20  # bytes read at once; values pass by for their checksum and are not kept

Opener = Callable[[Path], BinaryIO]


def any_file(path: Path) -> BinaryIO:
    """Open a file of any owner: enough where nothing of it is unpickled."""
    return open(path, "rb")


@dataclass(frozen=True, slots=True)
class Damage:
    """Bytes of a file that cannot be used.

    Attributes:
        path: The file.
        offset: Where they begin.
        size: How many there are.
        what: What is wrong with them, in words.
        tail: Whether nothing after them can be read either: the torn end of a killed run.
    """

    path: Path
    offset: int
    size: int
    what: str
    tail: bool

    def __str__(self) -> str:
        return f"{self.path}: {self.what}: {self.size} bytes at offset {self.offset} are not used"


@dataclass(frozen=True, slots=True)
class Record:
    """One record of a file: what it says of its value, and where it is."""

    meta: Meta
    offset: int
    size: int


class CheckpointReader:
    """Reads one checkpoint file from its beginning; iterate over it once.

    Attributes:
        path: The file.
        damages: What could not be used, complete when the iteration has ended.
        end: Up to where the file was good, so far.
    """

    def __init__(self, path: Path, opened: Opener = any_file) -> None:
        """Take the file, which need not exist: a run that was killed early has made no file.

        Args:
            path: The file.
            opened: What opens it. Values are to be unpickled of files only that ``own_files.open_own`` opens.
        """
        self.path = path
        self._opened = opened
        self.damages: list[Damage] = []
        self.end = 0

    def __iter__(self) -> Iterator[Record]:
        """Yield the good records in order.

        Raises:
            BadCheckpoint: it is no checkpoint, or of a newer version, or cannot be read at all.
            NotOwnFile: it is another user's, and ``opened`` looks at that.
        """
        try:
            with self._opened(self.path) as stream:
                yield from self._records(stream, os.fstat(stream.fileno()).st_size)
        except FileNotFoundError:
            return
        # It is an OSError, and callers treat it in another way.
        except NotOwnFile:
            raise
        except OSError as error:
            raise BadCheckpoint(f"the checkpoint {self.path} cannot be read: {error}") from error

    def _records(self, stream: BinaryIO, size: int) -> Iterator[Record]:
        header = stream.read(FILE_HEADER_BYTES)
        if not check_file_header(header, str(self.path)):
            if header:
                self._damaged(0, len(header), "the file ends within its header", tail=True)
            return
        self.end = at = FILE_HEADER_BYTES
        while at < size:
            head = unpack_head(stream.read(RECORD_HEAD_BYTES))
            # Without a head it is not known where the next record begins.
            if head is None:
                self._damaged(at, size - at, "a torn or damaged record head", tail=True)
                return
            whole = RECORD_HEAD_BYTES + head.size
            if at + whole > size:
                self._damaged(at, size - at, "the file ends within a record", tail=True)
                return
            # A wrong checksum alone: the head says how long the record is, so reading goes on behind it.
            meta = _read_body(stream, head)
            if meta is None:
                self._damaged(at, whole, "a record with a wrong checksum", tail=False)
                stream.seek(at + whole)
            else:
                yield Record(meta, at, whole)
            at += whole
            self.end = at

    def _damaged(self, offset: int, size: int, what: str, *, tail: bool) -> None:
        self.damages.append(Damage(self.path, offset, size, what, tail))


_LONGEST_META = 64 << 20
"""Bytes (64 MiB): a description that is longer is not Flow's, and would be held in memory."""


def _read_body(stream: BinaryIO, head: Head) -> Meta | None:
    """Return the meta of a body whose checksum is right, else None; the value goes by in chunks."""
    size_bytes = stream.read(META_SIZE_BYTES)
    if len(size_bytes) < META_SIZE_BYTES:
        return None
    size = unpack_meta_size(size_bytes)
    # Asked before anything is read: the number may be damaged.
    if META_SIZE_BYTES + size > head.size or size > _LONGEST_META:
        return None
    meta = stream.read(size)
    crc = crc32(meta, crc32(size_bytes))
    left = head.size - META_SIZE_BYTES - size
    while left > 0 and (chunk := stream.read(min(_CHUNK, left))):
        crc = crc32(chunk, crc)
        left -= len(chunk)
    if crc != head.crc or left:
        return None
    try:
        return unpack_meta(meta)
    except struct.error:  # a right checksum of what Flow has not written
        return None


def readable_end(path: Path) -> int:
    """Return up to where a file can be kept: all but its torn tail. Raises BadCheckpoint as reading does."""
    reader = CheckpointReader(path)
    for _ in reader:
        pass
    return reader.end


def read_value_bytes(path: Path, offset: int, digest: bytes, opened: Opener = any_file) -> bytes:
    """Return the pickled value of the record at an offset.

    Raises:
        BadCheckpoint: the record is not there any more, is damaged, or is not the one of that key.
    """
    try:
        with opened(path) as stream:
            stream.seek(offset)
            head = unpack_head(_read_exactly(stream, RECORD_HEAD_BYTES))
            body = _read_exactly(stream, head.size) if head is not None else b""
    except OSError as error:
        raise BadCheckpoint(f"a value in the checkpoint {path} cannot be read: {error}") from error
    if head is None or len(body) != head.size or crc32(body) != head.crc:
        raise BadCheckpoint(f"the record at offset {offset} of the checkpoint {path} is damaged or was replaced")
    size = unpack_meta_size(body)
    # The file may have been compacted since its offsets were read, so another record may stand there.
    if unpack_meta(body[META_SIZE_BYTES : META_SIZE_BYTES + size]).digest != digest:
        raise BadCheckpoint(f"the record at offset {offset} of the checkpoint {path} was replaced by another")
    return body[META_SIZE_BYTES + size :]


def read_value(path: Path, offset: int, digest: bytes, trusted: frozenset[int] = frozenset()) -> object:
    """Return the value of the record at an offset, of a file of this user or of one that is trusted (by number).

    Raises:
        BadCheckpoint: it cannot be read or unpickled, or the file is another user's by now.
    """
    data = read_value_bytes(path, offset, digest, lambda place: open_own(place, trusted))
    try:
        value: object = pickle.loads(data)
    except Exception as error:
        raise BadCheckpoint(
            f"a value in the checkpoint {path} cannot be unpickled here: {type(error).__name__}: {error}"
        ) from error
    return value


def _read_exactly(stream: BinaryIO, size: int) -> bytes:
    parts = []
    # In pieces of 1 GiB: read(2) gives 2 GiB at most.
    while size > 0 and (data := stream.read(min(size, 1 << 30))):
        parts.append(data)
        size -= len(data)
    return b"".join(parts)


def checkpoint_file(place: str | os.PathLike[str]) -> Path:
    """Return the file of a checkpoint named by its file, its directory, or its run's directory.

    Raises:
        BadCheckpoint: there is no such checkpoint.
    """
    path = Path(place)
    if path.is_file():
        return path
    if not path.exists():
        raise BadCheckpoint(f"there is no checkpoint {path}: name a run's directory, its checkpoint/ or the file in it")
    inner = path / "checkpoint"
    if not (path / FILE_NAME).exists() and inner.is_dir():
        return inner / FILE_NAME
    if path.name == "checkpoint" or (path / FILE_NAME).exists():
        return path / FILE_NAME
    raise BadCheckpoint(f"{path} holds no checkpoint: neither {FILE_NAME} nor checkpoint/ is in it")
