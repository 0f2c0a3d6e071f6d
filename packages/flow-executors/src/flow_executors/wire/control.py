"""The small messages that steer: fixed layouts, little endian.

- BLOB: ``u8 kind, 3 x 0, 16 B digest, u64 total, u64 offset``, then a piece; whole when the pieces cover ``total``
- NEED: ``u8 kind, 3 x 0, u32 n, n x 16 B digests``
- SPEC: ``u8 kind, 3 x 0, u32 class id``, then JSON (``specs.py``)
- HEARTBEAT, STARTED: ``u8 kind, 3 x 0, u32 n, u32 manager number, i64 time sent, i64 clock offset, n x u64 keys,
  n x i64 start, n x u16 worker``; from the interchange always n = 0
- CREDIT: ``u8 kind, 3 x 0, u32 managers, u32 slots, u32 prefetch, u64 window``
- ACK: ``u8 kind, 3 x 0, u32 sequence``
- CANCEL: ``u8 kind, u8 kill, 2 x 0, u32 n, n x u64 keys``
- RECALL: ``u8 kind, 3 x 0, u32 count`` (ALL for all)
- DRAIN: ``u8 kind, u8 mode, 2 x 0``
- EXIT: ``u8 kind, u8 code, 2 x 0``, then the reason as UTF-8
- AGAIN: ``u8 kind``
- NOTICE: ``u8 kind, 3 x 0, u32 manager number``, then the text as UTF-8
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

from flow_executors.errors import BadMessage
from flow_executors.wire.kinds import DIGEST_SIZE, Buffer, Kind, exact, expect

ALL = 0xFFFFFFFF
PIECE = 256 << 10
"""Most bytes of a blob that travel in one message."""

_LONGEST_NOTICE = 1000
"""Bytes."""

_BLOB = struct.Struct("<Bxxx16sQQ")
_COUNTED = struct.Struct("<BxxxI")
_BEAT = struct.Struct("<BxxxIIqq")
_CREDIT = struct.Struct("<BxxxIIIQ")
_CANCEL = struct.Struct("<BBxxI")
_CODED = struct.Struct("<BBxx")


class DrainMode(IntEnum):
    """What a manager, or the interchange on its behalf, is asked to do."""

    RELEASE = 0
    """Take tasks again."""
    HOLD = 1
    """Take no more tasks; finish what is there."""
    DRAIN = 2
    """Return what has not started, finish what runs, then send EXIT and leave."""


class ExitCode(IntEnum):
    """Why a process is to leave, or leaves."""

    DONE = 0
    """The run is over, or the drain is complete."""
    REFUSED = 1
    """The other side will not have it: version, Python version, key, run."""
    DECLARED_LOST = 2
    """It was silent for too long and counts as lost; its tasks run elsewhere."""
    FAILED = 3
    """An error; the reason says which."""


@dataclass(frozen=True, slots=True)
class BlobPiece:
    """A piece of a blob of ``total`` bytes, beginning at ``offset``."""

    digest: bytes
    total: int
    offset: int
    piece: memoryview


@dataclass(frozen=True, slots=True)
class Beat:
    """A heartbeat. Times in nanoseconds of the sender's clock; starts as columns of equal length."""

    manager: int
    sent_ns: int
    offset_ns: int
    keys: tuple[int, ...] = ()
    starts: tuple[int, ...] = ()
    workers: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Credit:
    """Capacity: connected managers, their slots, what they prefetch, and tasks of a class that may be out."""

    managers: int
    slots: int
    prefetch: int
    window: int


def pack_blob(digest: bytes, blob: Buffer) -> list[bytes]:
    """Cut a blob into messages of at most PIECE bytes each."""
    view, total = memoryview(blob), len(blob)
    return [_BLOB.pack(Kind.BLOB, digest, total, at) + view[at : at + PIECE] for at in range(0, max(total, 1), PIECE)]


def unpack_blob(message: Buffer) -> BlobPiece:
    """Parse BLOB.

    Raises:
        BadMessage: the piece does not lie within the blob.
    """
    view = expect(message, _BLOB.size, Kind.BLOB)
    _, digest, total, offset = _BLOB.unpack_from(view)
    piece = view[_BLOB.size :]
    if offset + len(piece) > total:
        raise BadMessage(f"piece of a blob at {offset} + {len(piece)} beyond its {total} bytes")
    return BlobPiece(digest, total, offset, piece)


def pack_need(digests: Sequence[bytes]) -> bytes:
    """Pack NEED."""
    return b"".join((_COUNTED.pack(Kind.NEED, len(digests)), *digests))


def unpack_need(message: Buffer) -> tuple[bytes, ...]:
    """Parse NEED into digests.

    Raises:
        BadMessage: its length is wrong.
    """
    view = expect(message, _COUNTED.size, Kind.NEED)
    _, n = _COUNTED.unpack_from(view)
    exact(view, _COUNTED.size + n * DIGEST_SIZE, Kind.NEED)
    return tuple(bytes(view[at : at + DIGEST_SIZE]) for at in range(_COUNTED.size, len(view), DIGEST_SIZE))


def pack_beat(beat: Beat, kind: Kind = Kind.HEARTBEAT) -> bytes:
    """Pack HEARTBEAT, or STARTED."""
    n = len(beat.keys)
    head = _BEAT.pack(kind, n, beat.manager, beat.sent_ns, beat.offset_ns)
    return head + struct.pack(f"<{n}Q{n}q{n}H", *beat.keys, *beat.starts, *beat.workers)


def unpack_beat(message: Buffer) -> Beat:
    """Parse HEARTBEAT or STARTED.

    Raises:
        BadMessage: its length is wrong.
    """
    view = expect(message, _BEAT.size, Kind.HEARTBEAT, Kind.STARTED)
    _, n, manager, sent_ns, offset_ns = _BEAT.unpack_from(view)
    exact(view, _BEAT.size + n * 18, Kind.HEARTBEAT)
    numbers = struct.unpack_from(f"<{n}Q{n}q{n}H", view, _BEAT.size)
    return Beat(manager, sent_ns, offset_ns, numbers[:n], numbers[n : 2 * n], numbers[2 * n :])


def pack_credit(credit: Credit) -> bytes:
    """Pack CREDIT."""
    return _CREDIT.pack(Kind.CREDIT, credit.managers, credit.slots, credit.prefetch, credit.window)


def unpack_credit(message: Buffer) -> Credit:
    """Parse CREDIT.

    Raises:
        BadMessage: its length is wrong.
    """
    view = expect(message, _CREDIT.size, Kind.CREDIT)
    exact(view, _CREDIT.size, Kind.CREDIT)
    return Credit(*_CREDIT.unpack_from(view)[1:])


def pack_ack(sequence: int) -> bytes:
    """Pack ACK."""
    return _COUNTED.pack(Kind.ACK, sequence)


def pack_recall(count: int) -> bytes:
    """Pack RECALL; ALL for every task that has not started."""
    return _COUNTED.pack(Kind.RECALL, count)


def unpack_count(message: Buffer, kind: Kind) -> int:
    """Parse ACK (a sequence number) or RECALL (a count).

    Raises:
        BadMessage: its length is wrong.
    """
    view = expect(message, _COUNTED.size, kind)
    exact(view, _COUNTED.size, kind)
    number: int = _COUNTED.unpack_from(view)[1]
    return number


def pack_cancel(keys: Sequence[int], kill: bool) -> bytes:
    """Pack CANCEL."""
    return _CANCEL.pack(Kind.CANCEL, kill, len(keys)) + struct.pack(f"<{len(keys)}Q", *keys)


def unpack_cancel(message: Buffer) -> tuple[tuple[int, ...], bool]:
    """Parse CANCEL into keys and whether started ones are to be killed.

    Raises:
        BadMessage: its length is wrong.
    """
    view = expect(message, _CANCEL.size, Kind.CANCEL)
    _, kill, n = _CANCEL.unpack_from(view)
    exact(view, _CANCEL.size + n * 8, Kind.CANCEL)
    return struct.unpack_from(f"<{n}Q", view, _CANCEL.size), bool(kill)


def pack_drain(mode: DrainMode) -> bytes:
    """Pack DRAIN."""
    return _CODED.pack(Kind.DRAIN, mode)


def unpack_drain(message: Buffer) -> DrainMode:
    """Parse DRAIN.

    Raises:
        BadMessage: its length is wrong, or the mode unknown.
    """
    view = expect(message, _CODED.size, Kind.DRAIN)
    exact(view, _CODED.size, Kind.DRAIN)
    try:
        return DrainMode(view[1])
    except ValueError:
        raise BadMessage(f"unknown mode {view[1]} of DRAIN") from None


def pack_exit(code: ExitCode = ExitCode.DONE, reason: str = "") -> bytes:
    """Pack EXIT."""
    return _CODED.pack(Kind.EXIT, code) + reason.encode(errors="replace")


def unpack_exit(message: Buffer) -> tuple[ExitCode, str]:
    """Parse EXIT; unknown codes count as FAILED.

    Raises:
        BadMessage: it is too short.
    """
    view = expect(message, _CODED.size, Kind.EXIT)
    code = ExitCode(view[1]) if view[1] in set(ExitCode) else ExitCode.FAILED
    return code, str(view[_CODED.size :], "utf-8", "replace")


def pack_again() -> bytes:
    """Pack AGAIN."""
    return bytes((Kind.AGAIN,))


def pack_notice(manager: int, text: str) -> bytes:
    """Pack NOTICE; a text that is too long is cut."""
    return _COUNTED.pack(Kind.NOTICE, manager) + text.encode(errors="replace")[:_LONGEST_NOTICE]


def unpack_notice(message: Buffer) -> tuple[int, str]:
    """Parse NOTICE into the manager's number and the text, without characters that do more than show.

    Raises:
        BadMessage: it is too short.
    """
    view = expect(message, _COUNTED.size, Kind.NOTICE)
    text = str(view[_COUNTED.size :][:_LONGEST_NOTICE], "utf-8", "replace")
    number: int = _COUNTED.unpack_from(view)[1]
    return number, "".join(one if one.isprintable() else " " for one in text)
