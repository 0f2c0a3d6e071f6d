"""Frames on the socket between an agent and the manager of its node. Pure.

A connection is one *stream*: one command that mpiexec wants run on another node. Its frames are what REMOTE messages
are between managers (``wire.ranks``), and go on as such; only START names the host, which the manager knows by number::

    u32 size of the body, u8 step, body
"""

from __future__ import annotations

import json
import struct
from typing import Final, NamedTuple

from flow_executors.errors import BadMessage
from flow_executors.wire.ranks import RemoteStep

LONGEST: Final = 4 << 20
"""Most bytes of a frame: START has an environment."""
_FRAME = struct.Struct("<IB")


class Wanted(NamedTuple):
    """What an agent was asked for: the host as mpiexec names it, the text for its shell, directory and variables."""

    host: str
    command: str
    directory: str
    environment: dict[str, str]


def pack_frame(step: RemoteStep, body: bytes = b"") -> bytes:
    """Pack a frame."""
    return _FRAME.pack(len(body), step) + body


def take_frames(buffer: bytearray) -> list[tuple[RemoteStep, bytes]]:
    """Take the whole frames at the begin of a buffer out of it. Raises BadMessage."""
    frames = []
    at = 0
    while len(buffer) - at >= _FRAME.size:
        size, step = _FRAME.unpack_from(buffer, at)
        if size > LONGEST:
            raise BadMessage(f"a frame of {size} bytes: at most {LONGEST} are taken")
        end = at + _FRAME.size + size
        if len(buffer) < end:
            break
        try:
            frames.append((RemoteStep(step), bytes(buffer[at + _FRAME.size : end])))
        except ValueError:
            raise BadMessage(f"a frame of the unknown step {step}") from None
        at = end
    del buffer[:at]
    return frames


def pack_wanted(wanted: Wanted) -> bytes:
    """Pack the body of an agent's START."""
    return json.dumps(wanted).encode()


def unpack_wanted(body: bytes) -> Wanted:
    """Return what an agent was asked for. Raises BadMessage."""
    try:
        found = json.loads(body)
    except ValueError as error:
        raise BadMessage(f"no JSON: {error}") from None
    well = (
        isinstance(found, list)
        and len(found) == len(Wanted._fields)
        and all(isinstance(text, str) for text in found[:3])
        and isinstance(found[3], dict)
        and all(isinstance(value, str) for value in found[3].values())
    )
    if not well:
        raise BadMessage("the start of an agent has other parts")
    return Wanted(*found)
