"""Transfers of files between a manager and the client: messages, and the stream of bytes that they carry.

FILE: ``u8 kind, u8 step, 2 x 0, u32 manager number, u64 transfer``, then what belongs to the step. The manager begins a
transfer and numbers it; the interchange passes all on unread, but that the manager has the task of an ASK.

- ASK (up): ``u64 key, u8 direction``: of the task of a key what it is given, or what it has made; or logs
- WANT (up; down after an ASK that goes on): ``n x (u32 entry, u64 offset)``: what is to be sent of what was listed
- WANT_PACKED (up): the same, and small files may come many in one record; only where the list says that this is known
- DATA (both): a piece of the stream
- PROGRESS (both): ``u64 bytes taken since the beginning, u64 bytes that may be on the way``. Who takes tells of each
  transfer before waiting for more, whatever has come of others: who sends may wait for the last byte to be told of
- END (both): JSON of ``Ending``: all was sent and published, or what went wrong
- STOP (up): the transfer is of no interest any more
- LOGS (down): send the ends of the logs of manager and workers
- ENDS (up): JSON of the last lines of logs that have grown, by their names: what is left of a manager that is killed

The stream is a row of records, ``u8 record, 3 x 0, u32 entry, u64 offset, u64 length`` and so many bytes. LIST has the
entries as JSON, each ``[file, member, type, size, mode, version]``, and 1 for ``entry`` where the sender knows
WANT_PACKED. BODY is followed by the digest of the whole content, of what lies before the offset too. PACK has whole
small files: so many as ``entry`` says, of each ``u32 entry, u32 size``, then the contents one after the other, and is
followed by the digest of all of that: one pass over many files.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from hashlib import blake2b
from typing import NamedTuple

from flow_executors.errors import BadMessage
from flow_executors.wire.kinds import Buffer, Kind, expect
from flow_executors.wire.schema import decode, encode

_FILE = struct.Struct("<BBxxIQ")
_ASK = struct.Struct("<QB")
_WANT = struct.Struct("<IQ")
_PROGRESS = struct.Struct("<QQ")
_RECORD = struct.Struct("<BxxxIQQ")
_PACKED = struct.Struct("<II")
PIECE_BYTES = 256 << 10
"""Most bytes of the stream in one message."""
TELL_BYTES = 512 << 10
"""Bytes after which the sender is told what was taken, though more has come already: some messages."""
SMALL_BYTES = 64 << 10
"""Bytes up to which a file goes, and is kept, together with others: a record and names for each took longer."""
DIGEST_BYTES = 16  # as all names of blobs
_LONGEST_LIST = 256 << 20  # bytes; a list is kept in memory
_KINDS = (int, str, str, int, int, str)  # of the fields of an entry


class FileStep(IntEnum):
    """What a FILE message is about."""

    ASK = 1
    WANT = 2
    DATA = 3
    PROGRESS = 4
    END = 5
    STOP = 6
    LOGS = 7
    WANT_PACKED = 8
    ENDS = 9


class TransferDirection(IntEnum):
    """The direction of a transfer."""

    IN = 0
    """What a task is given, to its node."""
    OUT = 1
    """What a task has made, to the script."""
    LOGS = 2
    """Logs of a manager and its workers, to the script."""
    OUT_ON = 3
    """As OUT, after a break: the list is sent, and then what the script says that it lacks."""


@dataclass(frozen=True, slots=True)
class FileMessage:
    """A FILE message without what belongs to its step."""

    step: int
    manager: int
    transfer: int
    body: memoryview


@dataclass(frozen=True, slots=True)
class Ending:
    """How a transfer ended: well where ``error`` is empty. ``missing`` are files that are not there."""

    error: str = ""
    missing: tuple[str, ...] = ()
    url: str = ""


class Entry(NamedTuple):
    """One thing of a list: a tuple, since lists have tens of thousands.

    Attributes:
        file: Which of the declared files it belongs to.
        member: Its path below that, of a directory or a pattern; else empty.
        type: ``f`` for a file, ``d`` for a directory.
        size: In bytes.
        mode: Its permissions.
        version: Text that no other version, and no other file, has; empty where that is not sure.
    """

    file: int
    member: str
    type: str
    size: int = 0
    mode: int = 0o644
    version: str = ""


def pack_file(step: FileStep, manager: int, transfer: int, body: Buffer = b"") -> bytes:
    """Return FILE: a step of a transfer of the manager of that number, and what belongs to the step."""
    return _FILE.pack(Kind.FILE, step, manager, transfer) + bytes(body)


def unpack_file(message: Buffer) -> FileMessage:
    """Parse FILE; steps that are not known stay numbers.

    Raises:
        BadMessage: it is too short.
    """
    view = expect(message, _FILE.size, Kind.FILE)
    _, step, manager, transfer = _FILE.unpack_from(view)
    return FileMessage(step, manager, transfer, view[_FILE.size :])


def pack_ask(manager: int, transfer: int, key: int, way: TransferDirection) -> bytes:
    """Return ASK for the files of a task, or for logs."""
    return pack_file(FileStep.ASK, manager, transfer, _ASK.pack(key, way))


def unpack_ask(body: memoryview) -> tuple[int, TransferDirection]:
    """Parse ASK into key and direction. Raises BadMessage."""
    if len(body) != _ASK.size:
        raise BadMessage(f"ASK of {len(body)} bytes")
    key, way = _ASK.unpack(body)
    try:
        return key, TransferDirection(way)
    except ValueError:
        raise BadMessage(f"ASK for direction {way}") from None


def asked_key(message: Buffer) -> int | None:
    """Return the key of a task of which files are asked for; None of another message. Raises BadMessage."""
    found = unpack_file(message)
    if found.step != FileStep.ASK:
        return None
    key, way = unpack_ask(found.body)
    return None if way is TransferDirection.LOGS else key


def pack_want(wanted: Sequence[tuple[int, int]]) -> bytes:
    """Return the body of WANT: entries, and from where on."""
    return b"".join(_WANT.pack(*one) for one in wanted)


def unpack_want(body: memoryview) -> list[tuple[int, int]]:
    """Parse the body of WANT. Raises BadMessage."""
    if len(body) % _WANT.size:
        raise BadMessage(f"WANT of {len(body)} bytes")
    return [(entry, offset) for entry, offset in _WANT.iter_unpack(body)]


def pack_progress(total: int, window: int) -> bytes:
    """Return the body of PROGRESS."""
    return _PROGRESS.pack(total, window)


def unpack_progress(body: memoryview) -> tuple[int, int]:
    """Parse the body of PROGRESS. Raises BadMessage."""
    if len(body) != _PROGRESS.size:
        raise BadMessage(f"PROGRESS of {len(body)} bytes")
    total, window = _PROGRESS.unpack(body)
    return total, window


def pack_ending(ending: Ending) -> bytes:
    """Return the body of END."""
    return encode(ending)


def unpack_ending(body: memoryview) -> Ending:
    """Parse the body of END. Raises BadMessage."""
    return decode(Ending, body)


END_BYTES = 2048
"""Most bytes of the end of a log that is told."""
MOST_ENDS = 16
"""Most logs of a manager whose ends are told and kept."""


def pack_ends(ends: Mapping[str, str]) -> bytes:
    """Return the body of ENDS: the ends of logs by name."""
    return json.dumps(ends, separators=(",", ":")).encode()


def unpack_ends(body: Buffer) -> dict[str, str]:
    """Parse the body of ENDS. Raises BadMessage."""
    try:
        ends = json.loads(bytes(body))
    except (ValueError, RecursionError) as error:
        raise BadMessage(f"no ends of logs: {error}") from None
    if type(ends) is not dict or len(ends) > MOST_ENDS or not all(type(one) is str for one in ends.values()):
        raise BadMessage("no ends of logs")
    return {name: text[-END_BYTES:] for name, text in ends.items()}


# -- the stream


class Record(IntEnum):
    """What a record of the stream holds."""

    LIST = 1
    BODY = 2
    PACK = 3


def pack_list(entries: Sequence[Entry], packs: bool = False) -> bytes:
    """Return the record of a list; ``packs``: whether WANT_PACKED is known."""
    text = json.dumps(entries, separators=(",", ":")).encode()
    return _RECORD.pack(Record.LIST, packs, 0, len(text)) + text


def unpack_list(text: Buffer) -> list[Entry]:
    """Parse a list. Raises BadMessage."""
    try:
        rows = json.loads(bytes(text))
        entries = [Entry(*row) for row in rows]
    except (ValueError, TypeError, RecursionError) as error:
        raise BadMessage(f"no list of files: {error}") from None
    for one in entries:
        if tuple(map(type, one)) != _KINDS:
            raise BadMessage("no list of files: a field of a wrong type")
        if one.type not in ("f", "d") or one.size < 0 or not 0 <= one.mode <= 0o7777:
            raise BadMessage("no list of files: an impossible entry")
    return entries


def pack_small(files: Sequence[tuple[int, int]], content: Buffer) -> bytes:
    """Return the record of small files, digest included: the entry and size of each, and their contents in a row."""
    table = b"".join([_PACKED.pack(*one) for one in files])
    head = _RECORD.pack(Record.PACK, len(files), 0, len(table) + len(content))
    return b"".join((head, table, content, _digest_of(table, content)))


def small_room(files: int) -> int:
    """Return the bytes of contents for which a piece with a record of so many small files has room."""
    return PIECE_BYTES - _RECORD.size - files * _PACKED.size - DIGEST_BYTES


def _digest_of(*parts: Buffer) -> bytes:
    digest = blake2b(digest_size=DIGEST_BYTES)
    for one in parts:
        digest.update(one)
    return digest.digest()


def pack_head(entry: int, offset: int, length: int) -> bytes:
    """Return what begins the record of a body of so many bytes."""
    return _RECORD.pack(Record.BODY, entry, offset, length)


def body_digest(content: Buffer) -> bytes:
    """Return the digest that follows a body."""
    return blake2b(content, digest_size=DIGEST_BYTES).digest()


@dataclass(frozen=True, slots=True)
class Listed:
    """All bytes of a list have come."""

    text: bytes
    packs: bool = False


@dataclass(frozen=True, slots=True)
class Packed:
    """Whole small files: entry and size of each, and their contents in a row.

    Raises BadMessage, of ``files``: it contradicts itself.
    """

    count: int
    body: memoryview
    digest: bytes

    @property
    def genuine(self) -> bool:
        """Whether what came is what was sent."""
        return body_digest(self.body) == self.digest

    @property
    def content(self) -> memoryview:
        """The contents, one after the other."""
        return self.body[self.count * _PACKED.size :]

    def files(self) -> list[tuple[int, int]]:
        """Return entry and size of each. Raises BadMessage: they are not what the contents have room for."""
        table = self.body[: self.count * _PACKED.size]
        found = [(entry, size) for entry, size in _PACKED.iter_unpack(table)] if len(table) % _PACKED.size == 0 else []
        if len(found) != self.count or sum(size for _, size in found) != len(self.content):
            raise BadMessage(f"a record of {self.count} small files in {len(self.body)} bytes")
        return found


@dataclass(frozen=True, slots=True)
class BodyBegun:
    """The content of a file begins: of which entry of a listing, at which offset, and how many bytes of it come."""

    entry: int
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class BodyPart:
    """Bytes of the body that has begun."""

    content: memoryview


@dataclass(frozen=True, slots=True)
class BodyEnded:
    """All bytes of a body have come, and the digest that the sender made of them."""

    entry: int
    digest: bytes


Part = Listed | Packed | BodyBegun | BodyPart | BodyEnded


class StreamReader:
    """Takes the stream apart, in whatever pieces it comes. Pure."""

    __slots__ = ("_count", "_entry", "_gathered", "_left", "_record", "_want")

    def __init__(self) -> None:
        self._gathered = bytearray()
        self._want = _RECORD.size
        self._record = 0  # LIST or PACK, all of which is gathered
        self._count = 0
        self._entry = -1  # of the body that has begun
        self._left = 0

    def feed(self, piece: Buffer) -> Iterator[Part]:
        """Yield what a piece completes; views are valid until the next piece.

        Raises:
            BadMessage: the stream is out of step.
        """
        view = memoryview(piece)
        while len(view):
            if self._left:
                part, view = view[: self._left], view[self._left :]
                self._left -= len(part)
                yield BodyPart(part)
                continue
            lacking = self._want - len(self._gathered)
            taken, view = view[:lacking], view[lacking:]
            if len(taken) < lacking:
                self._gathered += taken
            elif self._gathered:
                gathered, self._gathered = self._gathered, bytearray()
                gathered += taken
                yield from self._whole(memoryview(gathered))
            else:  # all of it in this piece: not copied
                yield from self._whole(taken)

    def _whole(self, gathered: memoryview) -> Iterator[Part]:
        record, self._record, self._want = self._record, 0, _RECORD.size
        if record == Record.LIST:
            yield Listed(bytes(gathered), self._count == 1)
        elif record == Record.PACK:
            yield Packed(self._count, gathered[:-DIGEST_BYTES], bytes(gathered[-DIGEST_BYTES:]))
        elif self._entry >= 0:
            entry, self._entry = self._entry, -1
            yield BodyEnded(entry, bytes(gathered))
        else:
            record, entry, offset, length = _RECORD.unpack(gathered)
            if record == Record.LIST and 0 < length <= _LONGEST_LIST:
                self._record, self._count, self._want = record, entry, length
            elif record == Record.PACK and 0 < length <= PIECE_BYTES:
                self._record, self._count, self._want = record, entry, length + DIGEST_BYTES
            elif record == Record.BODY:
                self._entry, self._left, self._want = entry, length, DIGEST_BYTES
                yield BodyBegun(entry, offset, length)
            else:
                raise BadMessage(f"record {record} of {length} bytes: the stream of files is out of step")


LEAST_WINDOW = 512 << 10
"""Bytes that may be on the way when nothing is known of the other side."""
MOST_WINDOW = 8 << 20
"""Most bytes of one transfer that are on the way: a bound for the memory of all on the way."""
# Seconds that what is on the way takes: tasks that are sent meanwhile wait no longer behind it.
_AHEAD_S = 0.5


class SendWindow:
    """How much of a transfer may be on its way: as much as the other side took lately in half a second. Pure."""

    __slots__ = ("_began", "_begun_at", "_mark", "granted", "limit", "sent", "taken")

    def __init__(self, granted: int) -> None:
        self.granted = granted
        self.limit = LEAST_WINDOW
        self.sent = 0
        self.taken = 0
        self._mark = -1
        self._began = 0
        self._begun_at = 0.0

    @property
    def out(self) -> int:
        """Bytes that are on the way."""
        return self.sent - self.taken

    @property
    def room(self) -> int:
        """Bytes that may be sent now."""
        return max(0, min(self.limit, self.granted) - self.out)

    def next_room(self, most: int = PIECE_BYTES) -> int:
        """Return how many bytes the next message may have; 0 while it is better to wait for more room."""
        room = min(self.room, most)
        return 0 if room <= 0 or (room < PIECE_BYTES // 4 and self.out) else room

    def add(self, count: int, now: float) -> None:
        """Note bytes that were sent."""
        self.sent += count
        if self._mark < 0:
            self._mark, self._began, self._begun_at = self.sent, self.taken, now

    def take(self, total: int, granted: int, now: float) -> None:
        """Note how many bytes the other side has taken, and how many may be on the way.

        Raises:
            BadMessage: more than were sent, or fewer than before.
        """
        if not self.taken <= total <= self.sent:
            raise BadMessage(f"{total} bytes of a transfer were taken, of {self.sent} that were sent")
        self.taken, self.granted = total, granted
        if 0 <= self._mark <= total:
            rate = (total - self._began) / max(1e-6, now - self._begun_at)
            self.limit = int(min(MOST_WINDOW, max(LEAST_WINDOW, rate * _AHEAD_S, self.limit / 2)))
            self._mark = -1
