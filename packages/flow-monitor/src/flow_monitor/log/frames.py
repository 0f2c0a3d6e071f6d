"""Frames of the event log: magic, length, CRC-32, payload. No I/O here.

Payloads are JSON in UTF-8, in which the first byte of the magic cannot occur: after damage the next frame is found
again.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from enum import Enum
from mmap import mmap

MAGIC = b"\xf5EV1"  # 0xF5 occurs in no UTF-8
_HEAD = struct.Struct("<4sII")
HEAD_SIZE = _HEAD.size
MAX_PAYLOAD = 64 << 20
"""Longest payload in bytes: a frame has at most 1024 events, so a longer length is damage, not a frame to wait for."""


def pack(payload: bytes) -> bytes:
    """Return the frame of a payload."""
    return _HEAD.pack(MAGIC, len(payload), zlib.crc32(payload)) + payload


class Look(Enum):
    """Kind of what is at a position of a log."""

    FRAME = "frame"
    MORE = "more"
    """The data end before the frame does: it may still be being written."""
    DAMAGE = "damage"


@dataclass(frozen=True, slots=True)
class FrameHeader:
    """Result of looking at a position: for a frame its payload; ``end`` is where to look next."""

    look: Look
    end: int
    payload: bytes = b""


def look(data: bytes | mmap, at: int) -> FrameHeader:
    """Look for a frame at a position of some data. After damage ``end`` is where the next frame may begin."""
    if len(data) - at < HEAD_SIZE:
        # Less than a head: it may be the begin of one, as far as it looks like it.
        start = data[at : at + len(MAGIC)]
        return (
            FrameHeader(Look.MORE, at) if MAGIC.startswith(start) else FrameHeader(Look.DAMAGE, after_damage(data, at))
        )
    magic, length, crc = _HEAD.unpack_from(data, at)
    if magic != MAGIC or length > MAX_PAYLOAD:
        return FrameHeader(Look.DAMAGE, after_damage(data, at))
    end = at + HEAD_SIZE + length
    if end > len(data):
        return FrameHeader(Look.MORE, at)
    payload = data[at + HEAD_SIZE : end]
    if zlib.crc32(payload) != crc:
        return FrameHeader(Look.DAMAGE, after_damage(data, at))
    return FrameHeader(Look.FRAME, end, payload)


def after_damage(data: bytes | mmap, at: int) -> int:
    """Return where after a position the next frame may begin; the end of the data if nowhere."""
    # From the next byte on, not behind the frame: of a damaged one the length is not to be trusted either.
    after = data.find(MAGIC[:1], at + 1)
    return len(data) if after < 0 else after
