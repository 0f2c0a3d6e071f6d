"""Messages of tasks of ranks (MPI): placements, parts on other nodes, and processes that are started there.

Layouts, little endian. The task itself goes to one manager, the *head*, by TASKS; the managers of its other nodes are
its *members*.

- PLACEMENT: ``u8 kind, 3 x 0, u64 key``, then JSON of ``RankPlacement``
- RESERVE: ``u8 kind, 3 x 0``, then JSON of ``Parts``
- RELEASE: ``u8 kind, 3 x 0, u32 n, n x u64 keys``
- BREAK: ``u8 kind, 3 x 0, u64 key``, then the loss, as in RESULTS
- REMOTE: ``u8 kind, u8 step, 2 x 0, u32 manager, u64 key, u32 stream``, then what belongs to the step

REMOTE names the other manager: on the way to the interchange the one that it is for, from there the one that it comes
of. The interchange passes it on between head and member of one task, in both directions, and to nobody else. The head
opens a stream by START, under a number that it has not used for the task before. STDIN goes to the member; STDOUT,
STDERR and EXIT come of it; KILL goes to it. Of each byte stream the sender may have ``WINDOW`` bytes under
way, and the receiver says by CREDIT which it has taken; an empty piece is the end of a stream. EXIT is the last message
of a stream, and KILL is answered by it.

A manager that offers no ``ranks`` in its registration knows none of these messages, and is given none.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum

from flow_executors.errors import BadMessage
from flow_executors.wire.kinds import Buffer, Kind, exact, expect
from flow_executors.wire.schema import decode, encode

WINDOW = 256 << 10
"""Bytes of one direction of a stream that may be under way."""
PIECE = 32 << 10
"""Most bytes in one message of a stream."""
RANKS_VERSION = 1
"""Version of these messages, as a manager offers it (``Registration.ranks``)."""

_KEYED = struct.Struct("<BxxxQ")
_COUNTED = struct.Struct("<BxxxI")
_REMOTE = struct.Struct("<BBxxIQI")
_CREDIT = struct.Struct("<BI")
_PLAIN = 4


@dataclass(frozen=True, slots=True)
class RankPlace:
    """The part of a task of ranks on one node.

    Attributes:
        manager: Number of the node's manager, as the interchange gave it.
        node: Host name.
        ranks: Ranks that belong there.
        slots: Workers that are kept for them.
        cores: CPUs that they are bound to; empty where the node's manager binds none.
        devices: Names of the accelerators that they may use, where known here: each manager chooses its own.
    """

    manager: int
    node: str
    ranks: int
    slots: int
    cores: tuple[int, ...] = ()
    devices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RankPlacement:
    """Where the ranks of a task are: one place a node, all of one block. The first is the head, where the task runs."""

    places: tuple[RankPlace, ...]

    @property
    def head(self) -> RankPlace:
        """The place of the task itself."""
        return self.places[0]

    @property
    def ranks(self) -> int:
        """All ranks."""
        return sum(place.ranks for place in self.places)


def pack_placement(key: int, placement: RankPlacement) -> bytes:
    """Return PLACEMENT, which goes ahead of the task."""
    return _KEYED.pack(Kind.PLACEMENT, key) + encode(placement)


def unpack_placement(message: Buffer) -> tuple[int, RankPlacement]:
    """Parse PLACEMENT into the key and the places.

    Raises:
        BadMessage: it is none, or has no place.
    """
    view = expect(message, _KEYED.size, Kind.PLACEMENT)
    placement = decode(RankPlacement, view[_KEYED.size :])
    if not placement.places or min(min(place.ranks, place.slots) for place in placement.places) < 1:
        raise BadMessage("a placement without ranks")
    return _KEYED.unpack_from(view)[1], placement


@dataclass(frozen=True, slots=True)
class Part:
    """What a manager keeps for a task of ranks that runs at another one.

    Attributes:
        key: The task.
        head: Number of the manager where it runs.
        slots: Workers.
        memory_mb: Memory.
        gpus: Accelerators, which the manager chooses.
        ranks: Ranks that belong there.
    """

    key: int
    head: int
    slots: int
    memory_mb: int = 0
    gpus: float = 0.0
    ranks: int = 1


@dataclass(frozen=True, slots=True)
class Parts:
    """Parts to keep from now on. Where they are all that there are, every other one is over."""

    parts: tuple[Part, ...] = ()
    all: bool = False


def pack_reserve(parts: Parts) -> bytes:
    """Return RESERVE."""
    return bytes((Kind.RESERVE, 0, 0, 0)) + encode(parts)


def unpack_reserve(message: Buffer) -> Parts:
    """Parse RESERVE.

    Raises:
        BadMessage: it is none, or a part is of less than nothing.
    """
    found = decode(Parts, expect(message, _PLAIN, Kind.RESERVE)[_PLAIN:])
    if any(part.slots < 1 or part.ranks < 1 or part.memory_mb < 0 or part.gpus < 0 for part in found.parts):
        raise BadMessage("a part of a task that takes less than nothing")
    return found


def pack_release(keys: Sequence[int]) -> bytes:
    """Return RELEASE for the parts of these tasks."""
    return _COUNTED.pack(Kind.RELEASE, len(keys)) + struct.pack(f"<{len(keys)}Q", *keys)


def unpack_release(message: Buffer) -> tuple[int, ...]:
    """Parse RELEASE into keys.

    Raises:
        BadMessage: its length is wrong.
    """
    view = expect(message, _COUNTED.size, Kind.RELEASE)
    n = _COUNTED.unpack_from(view)[1]
    exact(view, _COUNTED.size + n * 8, Kind.RELEASE)
    return struct.unpack_from(f"<{n}Q", view, _COUNTED.size)


def pack_break(key: int, loss: bytes) -> bytes:
    """Return BREAK with the loss (``pack_loss``) under which the task is to be reported."""
    return _KEYED.pack(Kind.BREAK, key) + loss


def unpack_break(message: Buffer) -> tuple[int, bytes]:
    """Parse BREAK into the key and the loss.

    Raises:
        BadMessage: it is none.
    """
    view = expect(message, _KEYED.size, Kind.BREAK)
    return _KEYED.unpack_from(view)[1], bytes(view[_KEYED.size :])


class RemoteStep(IntEnum):
    """What a REMOTE message is about."""

    START = 1
    """Head -> member: JSON of ``RemoteStart``."""
    STDIN = 2
    """Head -> member: a piece of the process's standard input; empty: its end."""
    STDOUT = 3
    """Member -> head: a piece of its standard output; empty: its end."""
    STDERR = 4
    """Member -> head: a piece of its standard error; empty: its end."""
    CREDIT = 5
    """The receiver of a byte stream -> its sender: which stream, and how many more bytes were taken."""
    EXIT = 6
    """Member -> head: JSON of ``RemoteExit``; nothing more comes of this stream."""
    KILL = 7
    """Head -> member: end the process and all that it has started."""


@dataclass(frozen=True, slots=True)
class RemoteStart:
    """A process to start as part of a task.

    Attributes:
        argv: Its command line.
        environment: Variables beside those of the member's own node.
        cwd: Its directory; the member's own where it is empty or not there.
    """

    argv: tuple[str, ...]
    environment: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    cwd: str = ""


@dataclass(frozen=True, slots=True)
class RemoteExit:
    """How a process ended: by a code, or by a signal as its negative number. ``error``: why it was never started."""

    code: int
    error: str = ""


@dataclass(frozen=True, slots=True)
class RemoteMessage:
    """A REMOTE message without what belongs to its step."""

    step: int
    manager: int
    key: int
    stream: int
    body: memoryview


def pack_remote(step: RemoteStep, manager: int, key: int, stream: int, body: Buffer = b"") -> bytes:
    """Return REMOTE; ``manager`` is the one that it is for."""
    return _REMOTE.pack(Kind.REMOTE, step, manager, key, stream) + body


def unpack_remote(message: Buffer) -> RemoteMessage:
    """Parse REMOTE.

    Raises:
        BadMessage: it is none.
    """
    view = expect(message, _REMOTE.size, Kind.REMOTE)
    _, step, manager, key, stream = _REMOTE.unpack_from(view)
    return RemoteMessage(step, manager, key, stream, view[_REMOTE.size :])


def from_manager(message: Buffer, manager: int) -> bytes:
    """Return a REMOTE message as it is passed on: with the number of the manager that it comes of."""
    return b"".join((message[:4], manager.to_bytes(4, "little"), message[8:]))


def pack_start(start: RemoteStart) -> bytes:
    """Return the body of START."""
    return encode(start)


def unpack_start(body: Buffer) -> RemoteStart:
    """Parse the body of START.

    Raises:
        BadMessage: it is none, or has no command.
    """
    start = decode(RemoteStart, body)
    if not start.argv or not start.argv[0] or any("\0" in text for text in start.argv):
        raise BadMessage("a process without a command")
    return start


def pack_exit_status(ended: RemoteExit) -> bytes:
    """Return the body of EXIT."""
    return encode(ended)


def unpack_exit_status(body: Buffer) -> RemoteExit:
    """Parse the body of EXIT.

    Raises:
        BadMessage: it is none.
    """
    return decode(RemoteExit, body)


def pack_taken_bytes(step: RemoteStep, count: int) -> bytes:
    """Return the body of CREDIT: so many more bytes of the stream of a step were taken."""
    return _CREDIT.pack(step, count)


def unpack_taken_bytes(body: Buffer) -> tuple[RemoteStep, int]:
    """Parse the body of CREDIT into the step of the stream and the bytes.

    Raises:
        BadMessage: it is none.
    """
    if len(body) != _CREDIT.size or body[0] not in (RemoteStep.STDIN, RemoteStep.STDOUT, RemoteStep.STDERR):
        raise BadMessage("a credit of no stream")
    step, count = _CREDIT.unpack(body)
    return RemoteStep(step), count
