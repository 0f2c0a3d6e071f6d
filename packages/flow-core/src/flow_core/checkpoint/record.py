"""Format of a checkpoint file: a header, then records. Pure: no files here.

    file    := header record*
    header  := magic(8) version(u32) crc32 of those 12 bytes(u32)
    record  := magic(4) size of body(u64) crc32 of body(u32) crc32 of those 16 bytes(u32) body
    body    := size of meta(u32) meta pickled value
    meta    := digest(16) source key(16) task(i64) started, ended, written(3 x i64, ns UTC) python major, minor(2 x u8)
               app(u16 size, UTF-8) number of parts(u16) part*
    part    := name(u16 size, UTF-8) short digest(8)

Little endian. A record whose head is whole and whose body is not can be stepped over; anything else ends the file.
"""

from __future__ import annotations

import struct
import sys
from dataclasses import dataclass
from zlib import crc32

from flow_core.errors import BadCheckpoint, NotACheckpoint

FILE_NAME = "tasks.log"
FAILURES_NAME = "failures.log"
DETAILS_NAME = "details.log"
VERSION = 1  # of the format; a reader refuses others by name
_FILE_MAGIC = b"\x89FLOWCK\n"
_RECORD_MAGIC = b"FLR\x01"  # before each record: a reader that has lost its place finds none by chance
_FILE = struct.Struct("<8sI")
_RECORD = struct.Struct("<4sQI")
_CRC = struct.Struct("<I")
_META = struct.Struct("<16s16sqqqqBB")
_SIZE = struct.Struct("<H")
FILE_HEADER_BYTES = _FILE.size + _CRC.size
RECORD_HEAD_BYTES = _RECORD.size + _CRC.size
META_SIZE_BYTES = _CRC.size
_NO_SOURCE = bytes(16)  # stands for "no key by source text"; no digest is all zeros in practice
PYTHON = sys.version_info[:2]


@dataclass(frozen=True, slots=True)
class Meta:
    """Description of a record's value.

    Attributes:
        digest: The call's key, 16 bytes.
        source: The call's key by source text, 16 bytes, or None.
        task_id: The task that made the value.
        started_ns: When it started, ns UTC.
        ended_ns: When it ended, ns UTC.
        written_ns: When the record was made, ns UTC: among equal keys the newest wins.
        python: Major and minor version of the Python that made the key.
        app: The app's name.
        parts: The parts of the key as (name, short digest).
    """

    digest: bytes
    source: bytes | None
    task_id: int
    started_ns: int
    ended_ns: int
    written_ns: int
    python: tuple[int, int]
    app: str
    parts: tuple[tuple[str, bytes], ...]


@dataclass(frozen=True, slots=True)
class Head:
    """The head of a record: how long its body is, and the body's checksum."""

    size: int
    crc: int


def file_header() -> bytes:
    """Return the header of a new file."""
    start = _FILE.pack(_FILE_MAGIC, VERSION)
    return start + _CRC.pack(crc32(start))


def check_file_header(data: bytes, name: str) -> bool:
    """Tell whether a file's first bytes are a whole header; False for one that was torn while it was written.

    Raises:
        NotACheckpoint: it is no checkpoint.
        BadCheckpoint: it is one of a newer version.
    """
    if len(data) < FILE_HEADER_BYTES:
        # A run that was killed while it wrote its header.
        if file_header().startswith(data):
            return False
        raise NotACheckpoint(f"{name} is not a checkpoint file of Flow")
    magic, version = _FILE.unpack_from(data)
    if magic != _FILE_MAGIC:
        raise NotACheckpoint(f"{name} is not a checkpoint file of Flow")
    # The checksum before the version: a damaged version would tell the user to update.
    if _CRC.unpack_from(data, _FILE.size)[0] != crc32(data[: _FILE.size]):
        raise NotACheckpoint(f"{name}: the header of this checkpoint file is damaged")
    if version != VERSION:
        raise BadCheckpoint(
            f"{name} is a checkpoint of version {version}; this Flow reads version {VERSION}: update it"
        )
    return True


def pack(meta: Meta, value: bytes) -> bytes:
    """Return a whole record."""
    packed = _pack_meta(meta)
    start = META_SIZE_BYTES + len(packed)
    # Step by step, without joining a value that may be large.
    crc = crc32(value, crc32(packed, crc32(_CRC.pack(len(packed)))))
    head = _RECORD.pack(_RECORD_MAGIC, start + len(value), crc)
    return b"".join((head, _CRC.pack(crc32(head)), _CRC.pack(len(packed)), packed, value))


def unpack_head(data: bytes) -> Head | None:
    """Return the head of a record from its RECORD_HEAD_BYTES bytes; None if they are damaged or too few."""
    if len(data) < RECORD_HEAD_BYTES:
        return None
    magic, size, crc = _RECORD.unpack_from(data)
    if magic != _RECORD_MAGIC or _CRC.unpack_from(data, _RECORD.size)[0] != crc32(data[: _RECORD.size]):
        return None
    return Head(size, crc)


def unpack_meta_size(data: bytes) -> int:
    """Return the size of the meta from the first META_SIZE_BYTES of a body."""
    size: int = _CRC.unpack_from(data)[0]
    return size


def _pack_meta(meta: Meta) -> bytes:
    times = (meta.started_ns, meta.ended_ns, meta.written_ns)
    fixed = _META.pack(meta.digest, meta.source or _NO_SOURCE, meta.task_id, *times, *meta.python)
    parts = [fixed, _pack_text(meta.app), _SIZE.pack(len(meta.parts))]
    for name, short in meta.parts:
        parts += (_pack_text(name), short[:8].ljust(8, b"\0"))
    return b"".join(parts)


def _pack_text(text: str) -> bytes:
    # Cut at what the 16-bit size can say; names are for people.
    data = text.encode("utf-8", "surrogatepass")[:0xFFFF]
    return _SIZE.pack(len(data)) + data


def unpack_meta(data: bytes) -> Meta:
    """Return the meta from its bytes, whose checksum was right."""
    digest, source, task_id, started, ended, written, major, minor = _META.unpack_from(data)
    app, at = _unpack_text(data, _META.size)
    (count,) = _SIZE.unpack_from(data, at)
    at += _SIZE.size
    parts = []
    for _ in range(count):
        name, at = _unpack_text(data, at)
        parts.append((name, data[at : at + 8]))
        at += 8
    source_key = None if source == _NO_SOURCE else source
    return Meta(digest, source_key, task_id, started, ended, written, (major, minor), app, tuple(parts))


def _unpack_text(data: bytes, at: int) -> tuple[str, int]:
    (size,) = _SIZE.unpack_from(data, at)
    at += _SIZE.size
    # "replace", since a name may have been cut within a character.
    return data[at : at + size].decode("utf-8", "replace"), at + size
