"""The first message on every connection.

HELLO: ``u8 kind, 4 B "FLOW", u8 0, u16 lowest version, u16 highest version``, then JSON of ``Introduction``. A manager
sends HELLO and waits for the interchange's HELLO (or EXIT with a reason) before it sends REGISTER.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from flow_executors.errors import BadMessage
from flow_executors.wire.kinds import Buffer, Kind, expect
from flow_executors.wire.schema import decode, encode
from flow_executors.wire.versions import HIGHEST, LOWEST

MAGIC = b"FLOW"
_HELLO = struct.Struct("<B4sxHH")


@dataclass(frozen=True, slots=True)
class Introduction:
    """Who speaks: role ``client``, ``interchange`` or ``manager``, of which run, with which versions."""

    role: str
    run_id: str
    python: str = ""
    software: str = ""
    pid: int = 0


@dataclass(frozen=True, slots=True)
class Hello:
    """A parsed HELLO."""

    lowest: int
    highest: int
    who: Introduction


def pack_hello(who: Introduction, lowest: int = LOWEST, highest: int = HIGHEST) -> bytes:
    """Pack HELLO."""
    return _HELLO.pack(Kind.HELLO, MAGIC, lowest, highest) + encode(who)


def unpack_hello(message: Buffer) -> Hello:
    """Parse HELLO.

    Raises:
        BadMessage: it is not Flow that speaks.
    """
    view = expect(message, _HELLO.size, Kind.HELLO)
    _, magic, lowest, highest = _HELLO.unpack_from(view)
    if magic != MAGIC:
        raise BadMessage("HELLO without the magic word: the other side is not Flow")
    return Hello(lowest, highest, decode(Introduction, view[_HELLO.size :]))
