"""Orders and questions of the client to the interchange, and the keys that it admits: JSON after the kind byte."""

from __future__ import annotations

from dataclasses import dataclass, field

from zmq.utils import z85

from flow_executors.wire.kinds import Buffer, Kind, expect
from flow_executors.wire.schema import LEFT_OUT, decode, encode


@dataclass(frozen=True, slots=True)
class Command:
    """A numbered order.

    Attributes:
        number: Repeated in the reply.
        name: ``hold``, ``release``, ``drain`` (blocks or managers), ``nodes`` (those that get nothing),
            ``blocks`` (what is connected), ``managers`` (the same, one by one), ``why`` (where a task is, and what is
            in its way).
        blocks: Blocks meant.
        managers: Names of managers meant.
        idle_for_s: With ``drain``: only blocks that have had nothing to do for that long.
        key: With ``why``: the task.
        nodes: With ``nodes``: their names.
    """

    number: int
    name: str
    blocks: tuple[str, ...] = ()
    managers: tuple[str, ...] = ()
    idle_for_s: float | None = None
    key: int | None = field(default=None, metadata=LEFT_OUT)
    nodes: tuple[str, ...] | None = field(default=None, metadata=LEFT_OUT)


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
class ManagerActivity:
    """What the interchange knows of a connected manager.

    Attributes:
        manager: Its name.
        block: Its block.
        node: Its node.
        workers: Tasks of one worker each that can run there at once.
        tasks: Tasks that it has, those that wait there for a worker included.
        idle_s: Seconds for which it has had nothing to do; 0 while it has something.
        draining: Whether it finishes what it has and leaves.
        held: Whether it takes nothing more, by an order about it.
        node_held: Whether it takes nothing more since tasks failed on its node.
        cut_off: Whether its connection is gone, and it may come back.
        silent_s: Seconds since its last message.
        python: Version of its Python.
        software: Version of flow-executors there.
        ends_at_ns: When the time of its block is over (int64 ns UTC); 0 where that is not known.
    """

    manager: str
    block: str
    node: str
    workers: int
    tasks: int
    idle_s: float
    draining: bool
    held: bool
    node_held: bool
    cut_off: bool
    silent_s: float
    python: str
    software: str
    ends_at_ns: int

    @property
    def active(self) -> bool:
        """Whether it takes tasks."""
        return not (self.draining or self.held or self.node_held or self.cut_off)


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """Where a task is, and what is in its way there.

    Attributes:
        at: ``script`` (it was not sent), ``sent`` (no more is known), ``queue`` (of the interchange) or ``manager``;
            empty where it is nowhere.
        ahead: In a queue or the script: tasks that come before it.
        urgent: Of these, tasks of higher priority.
        misfits: In the queue: why it can run on none of the managers, one reason a kind of them.
        needs: In the queue: slots that it takes, where it takes more than one.
        most_free: The most slots that are free on one manager that it fits.
        cramped: Whether it would fit such a manager by its slots, but its memory or devices are taken.
        closed: Managers that take nothing: held, draining, cut off, or on a node that is held.
        avoided: In the queue: nodes on which it failed before, while others come first.
        reserved: Managers that are kept free for a task of higher rank.
        managers: Managers that are connected.
        slots: Slots of all managers.
        busy: Slots that have a task.
        block: With a manager: its block.
        node: Its node.
        manager: Its name.
        outstanding: Tasks that it has.
        workers: Slots of that manager.
        started_ns: When the task started there, as the manager reported (int64 ns UTC); 0 where it has not.
        silent_s: Seconds since the last message of that manager.
        ranks: Of a task of ranks in the queue: how many it has.
        nodes: Nodes over which these are spread; None where they may be anywhere.
        nodes_able: The most nodes of one block that could have a share of it at all.
        nodes_ready: The most of these that have room for one now.
        nodes_kept: Nodes that are kept free for it.
        places: Of a task of ranks with a manager: its nodes, where there are several.
    """

    at: str = ""
    ahead: int = 0
    urgent: int = 0
    misfits: tuple[str, ...] = ()
    needs: int = 1
    most_free: int = 0
    cramped: bool = False
    closed: int = 0
    reserved: int = 0
    managers: int = 0
    slots: int = 0
    busy: int = 0
    block: str = ""
    node: str = ""
    manager: str = ""
    outstanding: int = 0
    workers: int = 0
    started_ns: int = 0
    silent_s: float = 0.0
    avoided: tuple[str, ...] | None = field(default=None, metadata=LEFT_OUT)
    ranks: int | None = field(default=None, metadata=LEFT_OUT)
    nodes: int | None = field(default=None, metadata=LEFT_OUT)
    nodes_able: int | None = field(default=None, metadata=LEFT_OUT)
    nodes_ready: int | None = field(default=None, metadata=LEFT_OUT)
    nodes_kept: int | None = field(default=None, metadata=LEFT_OUT)
    places: tuple[str, ...] | None = field(default=None, metadata=LEFT_OUT)


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to a Command: blocks that it took effect on, or what was asked for.

    Attributes:
        number: That of the command.
        blocks: Those that it took effect on, or was asked for.
        error: Why it was not carried out; empty where it was.
        whereabouts: With ``why``: where the task is.
        lacking: With ``blocks``: the nodes of one block that waiting tasks of ranks need where no block has as many,
            each number once. None where there is no such task.
        wide: With ``blocks``, of tasks that take several slots: how many wait, the slots that these take, and the slots
            that those which are out take beyond one each. None where there is no such task.
        managers: With ``managers``: those that are connected.
    """

    number: int
    blocks: tuple[BlockActivity, ...] = ()
    error: str = ""
    whereabouts: Whereabouts | None = field(default=None, metadata=LEFT_OUT)
    lacking: tuple[int, ...] | None = field(default=None, metadata=LEFT_OUT)
    wide: tuple[int, int, int] | None = field(default=None, metadata=LEFT_OUT)
    managers: tuple[ManagerActivity, ...] | None = field(default=None, metadata=LEFT_OUT)


@dataclass(frozen=True, slots=True)
class KeyChange:
    """Public keys (Z85 text) to admit, with their blocks, and blocks whose keys are revoked."""

    admit: tuple[tuple[str, str], ...] = ()
    revoke: tuple[str, ...] = ()

    def apply(self, admitted: dict[bytes, str]) -> None:
        """Change which keys (raw) are admitted, for which blocks. Others may read or change them meanwhile."""
        for key, block in self.admit:
            admitted[z85.decode(key.encode())] = block
        # Over a copy: others may admit blocks meanwhile.
        for raw in [raw for raw, block in [*admitted.items()] if block in self.revoke]:
            admitted.pop(raw, None)


def pack_command(command: Command) -> bytes:
    """Return COMMAND, an order of the client to the interchange."""
    return bytes((Kind.COMMAND,)) + encode(command)


def unpack_command(message: Buffer) -> Command:
    """Parse COMMAND; raises BadMessage."""
    return decode(Command, expect(message, 1, Kind.COMMAND)[1:])


def pack_reply(reply: Reply) -> bytes:
    """Return REPLY, the answer to a COMMAND of the same number."""
    return bytes((Kind.REPLY,)) + encode(reply)


def unpack_reply(message: Buffer) -> Reply:
    """Parse REPLY; raises BadMessage."""
    return decode(Reply, expect(message, 1, Kind.REPLY)[1:])


def pack_keys(change: KeyChange) -> bytes:
    """Return KEYS, which admits and revokes the keys of blocks."""
    return bytes((Kind.KEYS,)) + encode(change)


def unpack_keys(message: Buffer) -> KeyChange:
    """Parse KEYS; raises BadMessage."""
    return decode(KeyChange, expect(message, 1, Kind.KEYS)[1:])


# Count of RECALL that stands for every task: no manager has so many.
