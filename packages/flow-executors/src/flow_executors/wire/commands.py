"""Orders and questions of the client to the interchange, and the keys it admits. All JSON after the kind byte."""

from __future__ import annotations

from dataclasses import dataclass

from zmq.utils import z85

from flow_executors.wire.kinds import Buffer, Kind, expect
from flow_executors.wire.schema import decode, encode


@dataclass(frozen=True, slots=True)
class Command:
    """A numbered order.

    Attributes:
        number: Repeated in the reply.
        name: ``hold``, ``release``, ``drain`` (blocks or managers), ``blocks`` (what is connected).
        blocks: Blocks meant.
        managers: Names of managers meant.
        idle_for_s: With ``drain``: only blocks that have had nothing to do for that long.
    """

    number: int
    name: str
    blocks: tuple[str, ...] = ()
    managers: tuple[str, ...] = ()
    idle_for_s: float | None = None


@dataclass(frozen=True, slots=True)
class BlockActivity:
    """What the interchange knows of a connected block; ``idle_for_s`` is 0 while it has something to do."""

    block: str
    managers: tuple[str, ...]
    nodes: tuple[str, ...]
    slots: int
    outstanding: int
    idle_for_s: float
    held: bool = False


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to a Command: blocks that it took effect on, or what was asked for."""

    number: int
    blocks: tuple[BlockActivity, ...] = ()
    error: str = ""


@dataclass(frozen=True, slots=True)
class KeyChange:
    """Public keys (Z85 text) to admit, with their blocks, and blocks whose keys are revoked."""

    admit: tuple[tuple[str, str], ...] = ()
    revoke: tuple[str, ...] = ()

    def apply(self, admitted: dict[bytes, str]) -> None:
        """Change which keys (raw) are admitted, for which blocks. Others may read or change them meanwhile."""
        for key, block in self.admit:
            admitted[z85.decode(key.encode())] = block
        for raw in [raw for raw, block in [*admitted.items()] if block in self.revoke]:
            admitted.pop(raw, None)


def pack_command(command: Command) -> bytes:
    """Pack COMMAND."""
    return bytes((Kind.COMMAND,)) + encode(command)


def unpack_command(message: Buffer) -> Command:
    """Parse COMMAND; raises BadMessage."""
    return decode(Command, expect(message, 1, Kind.COMMAND)[1:])


def pack_reply(reply: Reply) -> bytes:
    """Pack REPLY."""
    return bytes((Kind.REPLY,)) + encode(reply)


def unpack_reply(message: Buffer) -> Reply:
    """Parse REPLY; raises BadMessage."""
    return decode(Reply, expect(message, 1, Kind.REPLY)[1:])


def pack_keys(change: KeyChange) -> bytes:
    """Pack KEYS."""
    return bytes((Kind.KEYS,)) + encode(change)


def unpack_keys(message: Buffer) -> KeyChange:
    """Parse KEYS; raises BadMessage."""
    return decode(KeyChange, expect(message, 1, Kind.KEYS)[1:])
