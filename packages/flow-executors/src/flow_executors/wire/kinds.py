"""The kinds of messages: the first byte of each, and what every parser shares."""

from __future__ import annotations

import struct
from enum import IntEnum

from flow_executors.errors import BadMessage

Buffer = bytes | bytearray | memoryview
Received = bytes | memoryview
"""A message as it came from a socket: it is not changed any more."""
# Bytes of a blake2b digest: enough that two functions never share one, and half of what a record would carry with 32.
DIGEST_SIZE = 16
MAX_JSON = 16 << 20
"""Largest JSON body in bytes that is parsed: a stranger's must not fill the memory. Only the magnitude matters."""
_NUMBERED = struct.Struct("<4xI")


class Kind(IntEnum):
    """First byte of a message. Unknown kinds are ignored and counted by every receiver."""

    HELLO = ord("V")
    """Both ways, first on every connection: versions and the sender's identity."""
    TASKS = ord("T")
    """Client -> interchange -> manager: a batch of tasks of one class."""
    RESULTS = ord("R")
    """Manager -> interchange -> client: a batch of outcomes of one manager (number 0: the interchange's own)."""
    BLOB = ord("F")
    """Client -> interchange -> manager: a function body or a large buffer, or one piece of it."""
    FILE = ord("d")
    """Manager <-> interchange <-> client: a step of the transfer of files of one task, see ``wire.files``."""
    NEED = ord("N")
    """Manager -> interchange -> client: digests of blobs that are missing."""
    SPEC = ord("S")
    """Client -> interchange -> manager: what a class id stands for; sent before the class is first used."""
    REGISTER = ord("G")
    """Manager -> interchange -> client: a manager offers its slots, with the keys it still holds."""
    WELCOME = ord("W")
    """Interchange -> manager: the registration is accepted."""
    WORKER = ord("I")
    """Manager -> interchange -> client: another process has taken the place of a worker; ahead of its first result."""
    LEFT = ord("L")
    """Interchange -> client: a manager is gone, and why."""
    HEARTBEAT = ord("H")
    """Manager <-> interchange: alive; from the manager with starts to report."""
    STARTED = ord("B")
    """Interchange -> client: the starts out of a heartbeat, in the same layout."""
    CREDIT = ord("C")
    """Interchange -> client: how many tasks of a class may be out. Manager -> interchange: changed capacity."""
    ACK = ord("A")
    """Interchange -> manager: result messages up to this number have reached the client's socket."""
    CANCEL = ord("K")
    """Client -> interchange -> manager: keys to cancel."""
    RECALL = ord("P")
    """Interchange -> manager: give back tasks that have not started."""
    RETURNED = ord("U")
    """Manager -> interchange: the tasks given back, in the layout of TASKS; the last one is flagged."""
    EVENTS = ord("E")
    """Manager -> interchange -> client: events of the node."""
    NOTICE = ord("n")
    """Manager -> interchange -> client: a warning for the log of the run."""
    DRAIN = ord("D")
    """Interchange -> manager: take nothing more; with mode DRAIN also return what has not started, finish, and EXIT."""
    EXIT = ord("X")
    """Any way: the receiver must leave (down) or the sender leaves (up), with a code and a reason."""
    COMMAND = ord("M")
    """Client -> interchange: a question or an order with a number."""
    REPLY = ord("Y")
    """Interchange -> client: the answer to a COMMAND."""
    AGAIN = ord("Q")
    """Interchange -> manager: it is not registered here, and is to send HELLO and REGISTER again."""
    KEYS = ord("O")
    """Client -> interchange: public keys of blocks to admit or to revoke."""
    CHANNEL_OFFER = ord("l")
    """Manager -> client without an interchange between: how one of its workers can be given tasks directly."""
    CLAIM = ord("c")
    """Client -> manager: who gives tasks to a worker, and which the client has given it."""
    TAKEN = ord("t")
    """Manager -> client: which of them are not there any more, but with the manager."""
    WORKER_DIED = ord("f")
    """Manager -> client: a worker with a direct channel is dead; with the verdict for tasks that the client gave."""

    PLACEMENT = ord("p")
    """Interchange -> manager, ahead of a task of ranks: where its ranks are placed, see ``wire.ranks``."""
    RESERVE = ord("r")
    """Interchange -> manager: the parts of tasks of ranks that run at other managers and have ranks at this one."""
    RELEASE = ord("e")
    """Interchange -> manager: such parts are over."""
    BREAK = ord("b")
    """Interchange -> manager: a task of ranks has lost one of its nodes, and is to be killed."""
    REMOTE = ord("o")
    """Manager <-> interchange <-> manager: a step of a process that a task of ranks has on another of its nodes."""


TASKS, RETURNED, RESULTS, KEYS = Kind.TASKS, Kind.RETURNED, Kind.RESULTS, Kind.KEYS
HELLO, REGISTER = Kind.HELLO, Kind.REGISTER
"""Kinds that are compared with each message, as globals: a member through its class costs 70 ns, a global 8."""

GREETINGS = (HELLO, REGISTER)
"""Kinds whose handlers need the block of the sender's key, which the sockets look up for these alone."""


KNOWN_KINDS = frozenset(int(kind) for kind in Kind)


def kind_of(message: Buffer) -> int:
    """Return the first byte of a message, whether known or not.

    Raises:
        BadMessage: the message is empty.
    """
    if not len(message):
        raise BadMessage("empty message")
    return message[0]


def number_of(message: Buffer) -> int:
    """Return the number of the manager that a message names: of EVENTS, WORKER and NOTICE.

    Raises:
        BadMessage: it is too short.
    """
    if len(message) < _NUMBERED.size:
        raise BadMessage("a message without the number of its manager")
    number: int = _NUMBERED.unpack_from(message)[0]
    return number


def expect(message: Buffer, size: int, *kinds: Kind) -> memoryview:
    """Check kind and least size of a message and return a view of it.

    Raises:
        BadMessage: it is shorter, or of another kind.
    """
    view = memoryview(message)
    if len(view) < size:
        raise BadMessage(f"{kinds[0].name} message of {len(view)} bytes: at least {size} needed")
    if view[0] not in kinds:
        raise BadMessage(f"message of kind {view[0]} where {kinds[0].name} is meant")
    return view


def exact(view: memoryview, size: int, kind: Kind) -> None:
    """Check that a message is as long as its header says.

    Raises:
        BadMessage: it is longer or shorter.
    """
    if len(view) != size:
        raise BadMessage(f"{kind.name} message of {len(view)} bytes where its header says {size}")
