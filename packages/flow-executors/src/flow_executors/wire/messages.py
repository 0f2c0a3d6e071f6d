"""The control messages between client, interchange and manager: their records, packed and unpacked without any I/O.

Layouts are little endian; the first byte is the kind. Orders of the client are in ``commands``.

Class ids. SPEC: ``u8 kind, 3 x 0, u32 class id``, then the TaskSpec as JSON.

Class 0 is the default class and needs no SPEC.

Versions of the protocol. Each side states the lowest and the highest it speaks; the highest common one is used.

The first message on every connection.

HELLO: ``u8 kind, 4 B "FLOW", u8 0, u16 lowest version, u16 highest version``, then JSON of ``PeerInfo``. A manager
sends HELLO and waits for the interchange's HELLO (or EXIT with a reason) before it sends REGISTER.

Registration and leave of managers.

- REGISTER: ``u8 kind, 3 x 0, u32 manager number (0: none yet), u32 JSON length, u32 n``, the JSON of ``Registration``,
  ``n x u64`` keys that the manager still holds: waiting, running, or with a result not acknowledged. The results not
  acknowledged follow at once as RESULTS.
- WORKER: ``u8 kind, 3 x 0, u32 manager number, u32 rank, u32 pid``
- WELCOME: ``u8 kind``, then JSON of ``Welcome``
- LEFT: ``u8 kind``, then JSON of ``ManagerLeft``

Clock offset: the manager takes its time before REGISTER (``time_ns``) and after WELCOME; the offset that it states in
results and heartbeats is ``Welcome.time_ns`` minus the middle of the two.

The small messages that steer: fixed layouts, little endian.

- BLOB: ``u8 kind, 3 x 0, 16 B digest, u64 total, u64 offset``, then a piece; whole when the pieces cover ``total``
- NEED: ``u8 kind, 3 x 0, u32 n, n x 16 B digests``
- SPEC: ``u8 kind, 3 x 0, u32 class id``, then JSON of ``TaskSpec``
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

Losses of tries: JSON, see ``LossRecord``.

Events of a node. EVENTS: ``u8 kind, 3 x 0, u32 manager number``, then JSON of ``NodeEvents``.

The client completes executor, block, node and manager from what it knows of the manager number.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum

from flow_core.interfaces.call import FileProgress, TaskSpec, TryKey
from flow_core.interfaces.outcome import Loss, LossKind, Place
from flow_core.interfaces.sampler import Sample
from flow_executors.errors import BadMessage, VersionMismatch
from flow_executors.wire.kinds import DIGEST_SIZE, Buffer, Kind, exact, expect
from flow_executors.wire.schema import LEFT_OUT, decode, encode

# Class of tasks that ask for one slot and nothing else; known to all without a SPEC.
DEFAULT_CLASS = 0
_SPEC = struct.Struct("<BxxxI")
_MOST_RANKS = 10_000_000  # a bound for the numbers that are computed with it


def pack_spec(class_id: int, spec: TaskSpec) -> bytes:
    """Return SPEC: the class id, and what tasks of the class ask for."""
    return _SPEC.pack(Kind.SPEC, class_id) + encode(spec)


def unpack_spec(message: Buffer) -> tuple[int, TaskSpec]:
    """Parse SPEC into class id and TaskSpec.

    Raises:
        BadMessage: no TaskSpec, or one that asks for less than nothing.
    """
    view = expect(message, _SPEC.size, Kind.SPEC)
    (_, class_id) = _SPEC.unpack_from(view)
    spec = decode(TaskSpec, view[_SPEC.size :])
    resources = spec.resources
    # A negative demand would make room where there is none: it is added to what a node has given out.
    if min(resources.cores, resources.memory_mb, resources.gpus, resources.disk_mb) < 0 or resources.nodes < 1:
        raise BadMessage("a task cannot ask for less than nothing")
    if resources.ranks is not None and not (
        1 <= resources.nodes <= resources.ranks <= _MOST_RANKS and resources.ranks_per_node >= 1
    ):
        raise BadMessage("a task of ranks without ranks, or of too many")
    if min(resources.cores_per_rank or 0, resources.gpus_per_rank or 0) < 0:
        raise BadMessage("a rank cannot take less than nothing")
    return class_id, spec


# Versions of the protocol. Version 1 sent long messages of managers in one frame, which an interchange no longer
# accepts from the network.
LOWEST = 2
HIGHEST = 2


def agree(lowest: int, highest: int, who: str) -> int:
    """Return the highest version that both sides speak.

    Raises:
        VersionMismatch: there is none; the text names both sides.
    """
    version = min(highest, HIGHEST)
    if version < max(lowest, LOWEST):
        raise VersionMismatch(
            f"{who} speaks versions {lowest} to {highest} of the protocol, this process {LOWEST} to {HIGHEST}: "
            "install the same release of flow-executors on both sides"
        )
    return version


def same_python(theirs: str, ours: str, who: str) -> None:
    """Check that two Python versions agree in major and minor number.

    Raises:
        VersionMismatch: they differ; the text names both.
    """
    # Functions travel by value as bytecode, whose format is that of a minor version.
    if theirs.split(".")[:2] != ours.split(".")[:2]:
        raise VersionMismatch(
            f"{who} runs Python {theirs}, the script runs Python {ours}: functions cannot travel between them. "
            "Activate the same environment in the provider's worker_init, or name a Python of the same minor version "
            "by the executor's option python="
        )


# A peer that is not Flow is recognised before any of its fields is believed.
MAGIC = b"FLOW"
_HELLO = struct.Struct("<B4sxHH")


@dataclass(frozen=True, slots=True)
class PeerInfo:
    """Introduction of a process: role ``client``, ``interchange`` or ``manager``, of which run, with which versions.

    ``marker`` and ``marker_digest`` are of the interchange: by the ``RunMarker`` a manager finds out whether its node
    sees the run's directory. None where there is none. ``node`` is the host of a manager.
    """

    role: str
    run_id: str
    python: str = ""
    software: str = ""
    pid: int = 0
    marker: str | None = field(default=None, metadata=LEFT_OUT)
    marker_digest: str | None = field(default=None, repr=False, metadata=LEFT_OUT)
    node: str | None = field(default=None, metadata=LEFT_OUT)


@dataclass(frozen=True, slots=True)
class Hello:
    """The content of HELLO: the range of versions that the sender speaks, and who it is."""

    lowest: int
    highest: int
    who: PeerInfo


def pack_hello(who: PeerInfo, lowest: int = LOWEST, highest: int = HIGHEST) -> bytes:
    """Return HELLO for the process ``who``, which speaks the versions from ``lowest`` to ``highest``."""
    return _HELLO.pack(Kind.HELLO, MAGIC, lowest, highest) + encode(who)


def unpack_hello(message: Buffer) -> Hello:
    """Parse HELLO.

    Raises:
        BadMessage: the sender is not Flow.
    """
    view = expect(message, _HELLO.size, Kind.HELLO)
    _, magic, lowest, highest = _HELLO.unpack_from(view)
    if magic != MAGIC:
        raise BadMessage("HELLO without the magic word: the other side is not Flow")
    return Hello(lowest, highest, decode(PeerInfo, view[_HELLO.size :]))


_REGISTER = struct.Struct("<BxxxIII")
_WORKER = struct.Struct("<BxxxIII")
_LONGEST_NAME = 1024  # characters: names of hosts have 253 at most, a manager's has block and pid beside


@dataclass(frozen=True, slots=True)
class WorkersOfNode:
    """Workers of one manager that are together on a node.

    Attributes:
        node: Host name.
        workers: How many they are; those of the nodes before have the numbers before.
        pid: Process that is above the first of them.
        cpu_count: Cores of the node.
        memory_bytes: Memory of the node.
    """

    node: str
    workers: int
    pid: int = 0
    cpu_count: int = 0
    memory_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Registration:
    """Offer of a manager: its workers, its resources and its identity.

    Attributes:
        manager_id: Unique name of the manager process, kept over reconnections.
        block: Block it belongs to; must be the one of its key.
        node: Host name.
        pid: Process id on that host.
        workers: Tasks of the default class that can run at once.
        prefetch: Tasks of the default class taken beyond that.
        cores: Cores to give to tasks.
        memory_mb: Memory to give to tasks; 0 where not limited.
        gpus: Accelerators to give to tasks.
        named: Other resources as (name, amount).
        cpu_count: Cores of the node.
        memory_bytes: Memory of the node.
        python: Version of Python.
        software: Version of this package.
        host_id: Equal for processes that see the same files in memory (boot id and namespace).
        time_ns: The manager's clock when it sent this.
        ends_at_ns: When the block's own time is over (ns UTC); 0 where not known.
        worker_pids: Process ids of the workers by rank, 0 where not known.
        secret: Made by the manager at its start and known to it, the interchange and the script alone: it tells
            whether the same one comes again, as its name does not.
        session: As in the last ``Welcome``; None before the first. Never passed on to the client.
        sees_run: Whether its node sees the run's directory, as the marker tells; None where that was not asked, and
            then it counts as one that does.
        flow_core: Version of flow-core; None where it is not known.
        cloudpickle: Version of cloudpickle, likewise.
        code: Digest of Flow's own code there; None of releases that made none, and where it was not asked for.
        left_aside: The Flow of the node for which the script's was brought; None: there was none, or it is run.
        address: Where its connection comes from, as the interchange sees it; None: over no network.
        ranks: Version of the messages of tasks of ranks that it speaks (``wire.ranks``); None: it knows no such tasks.
        nodes: Where its workers are, in the order of their numbers; None: all on ``node``.
        spread: Those of the keys held that have ranks on other nodes; None where there are none.
    """

    manager_id: str
    block: str
    node: str
    pid: int
    workers: int
    prefetch: int = 0
    cores: float = 0.0
    memory_mb: int = 0
    gpus: float = 0.0
    named: tuple[tuple[str, float], ...] = ()
    cpu_count: int = 0
    memory_bytes: int = 0
    python: str = ""
    software: str = ""
    host_id: str = ""
    time_ns: int = 0
    ends_at_ns: int = 0
    worker_pids: tuple[int, ...] = ()
    secret: str | None = field(default=None, repr=False, metadata=LEFT_OUT)
    session: str | None = field(default=None, repr=False, metadata=LEFT_OUT)
    sees_run: bool | None = field(default=None, metadata=LEFT_OUT)
    flow_core: str | None = field(default=None, metadata=LEFT_OUT)
    cloudpickle: str | None = field(default=None, metadata=LEFT_OUT)
    code: str | None = field(default=None, metadata=LEFT_OUT)
    left_aside: str | None = field(default=None, metadata=LEFT_OUT)
    address: str | None = field(default=None, metadata=LEFT_OUT)
    ranks: int | None = field(default=None, metadata=LEFT_OUT)
    spread: tuple[int, ...] | None = field(default=None, metadata=LEFT_OUT)
    nodes: tuple[WorkersOfNode, ...] | None = field(default=None, metadata=LEFT_OUT)

    def node_of(self, worker: int) -> str:
        """Return the host name of the node on which a worker is."""
        for one in self.nodes or ():
            if worker < one.workers:
                return one.node
            worker -= one.workers
        return self.node

    @property
    def is_apart(self) -> bool:
        """Whether its node is known not to see the run's directory."""
        return self.sees_run is False

    @property
    def identity(self) -> str:
        """Return the secret, which no other manager knows; the name for a release that made no secret."""
        return self.secret or self.manager_id


@dataclass(frozen=True, slots=True)
class Welcome:
    """The answer to a registration; times in ns UTC of the interchange's clock, periods in seconds.

    ``host_id`` is that of the interchange and the client, as in ``Registration``. ``results`` is where managers of the
    same machine find the client itself, to send it a result at once; empty where they do not. ``session`` is to be
    shown with ``manager`` at the next registration: no other manager of the block knows it.
    """

    manager: int
    time_ns: int
    heartbeat_period_s: float
    heartbeat_threshold_s: float
    host_id: str = ""
    results: str = ""
    session: str | None = field(default=None, repr=False, metadata=LEFT_OUT)


@dataclass(frozen=True, slots=True)
class ManagerLeft:
    """A manager is gone: ``lost`` without an EXIT, else drained or done."""

    manager: int
    manager_id: str
    block: str
    node: str
    reason: str
    lost: bool


def pack_register(manager: int, registration: Registration, held: Sequence[int]) -> bytes:
    """Return REGISTER under a manager number (0 for a new one), with the keys that the manager holds."""
    body = encode(registration)
    head = _REGISTER.pack(Kind.REGISTER, manager, len(body), len(held))
    return head + body + struct.pack(f"<{len(held)}Q", *held)


def unpack_register(message: Buffer) -> tuple[int, Registration, tuple[int, ...]]:
    """Parse REGISTER into the number, the offer and the keys held.

    Raises:
        BadMessage: its parts do not fit together, or an offer is impossible.
    """
    view = expect(message, _REGISTER.size, Kind.REGISTER)
    _, manager, size, n = _REGISTER.unpack_from(view)
    # The length is checked before the keys are unpacked: ``n`` is the sender's word.
    exact(view, _REGISTER.size + size + n * 8, Kind.REGISTER)
    body = view[_REGISTER.size : _REGISTER.size + size]
    registration = decode(Registration, body)
    # Bounded, as all offers are summed up into the credit of the client.
    if not (0 <= registration.workers < 1 << 20 and 0 <= registration.prefetch < 1 << 24):
        raise BadMessage(f"a manager cannot have {registration.workers} workers, prefetch {registration.prefetch}")
    # Names go into logs, errors and databases as often as there are tasks.
    if max(len(registration.manager_id), len(registration.node), len(registration.python)) > _LONGEST_NAME:
        raise BadMessage(f"a manager whose name is longer than {_LONGEST_NAME} characters")
    return manager, registration, struct.unpack_from(f"<{n}Q", view, _REGISTER.size + size)


def pack_worker(manager: int, rank: int, pid: int) -> bytes:
    """Return WORKER: the process that is the worker of a rank from now on."""
    return _WORKER.pack(Kind.WORKER, manager, rank, pid)


def unpack_worker(message: Buffer) -> tuple[int, int, int]:
    """Parse WORKER into the manager's number, the rank and the process id.

    Raises:
        BadMessage: it is none.
    """
    view = expect(message, _WORKER.size, Kind.WORKER)
    exact(view, _WORKER.size, Kind.WORKER)
    _, manager, rank, pid = _WORKER.unpack_from(view)
    return manager, rank, pid


def pack_welcome(welcome: Welcome) -> bytes:
    """Return WELCOME, which accepts a registration."""
    return bytes((Kind.WELCOME,)) + encode(welcome)


def unpack_welcome(message: Buffer) -> Welcome:
    """Parse WELCOME.

    Raises:
        BadMessage: it is none.
    """
    return decode(Welcome, expect(message, 1, Kind.WELCOME)[1:])


def pack_left(departure: ManagerLeft) -> bytes:
    """Return LEFT, which tells the client that a manager is gone."""
    return bytes((Kind.LEFT,)) + encode(departure)


def unpack_left(message: Buffer) -> ManagerLeft:
    """Parse LEFT.

    Raises:
        BadMessage: it is none.
    """
    return decode(ManagerLeft, expect(message, 1, Kind.LEFT)[1:])


ALL = 0xFFFFFFFF
PIECE = 256 << 10
"""Most bytes of a blob that travel in one message. Through encryption, pieces of 256 KiB were twice as fast as one
frame of 100 MB."""

# Bytes of a NOTICE, a line of a log: what a manager sends ends up in the run's log.
_LONGEST_NOTICE = 1000

_BLOB = struct.Struct("<Bxxx16sQQ")
_COUNTED = struct.Struct("<BxxxI")
_BEAT = struct.Struct("<BxxxIIqq")
_CREDIT = struct.Struct("<BxxxIIIQ")
_CANCEL = struct.Struct("<BBxxI")
_CODED = struct.Struct("<BBxx")


class DrainMode(IntEnum):
    """Orders about new tasks, to a manager or to the interchange on its behalf."""

    RELEASE = 0
    """Take tasks again."""
    HOLD = 1
    """Take no more tasks; finish what is there."""
    DRAIN = 2
    """Return what has not started, finish what runs, then send EXIT and leave."""


class ExitCode(IntEnum):
    """Reasons for which a process leaves, or is to leave."""

    DONE = 0
    """The run is over, or the drain is complete."""
    REFUSED = 1
    """The other side does not accept it: version, Python version, key, run."""
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
class Heartbeat:
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
    # An empty blob is one message too, else nobody would learn that it is there.
    return [_BLOB.pack(Kind.BLOB, digest, total, at) + view[at : at + PIECE] for at in range(0, max(total, 1), PIECE)]


def unpack_blob(message: Buffer) -> BlobPiece:
    """Parse BLOB.

    Raises:
        BadMessage: the piece does not lie within the blob.
    """
    view = expect(message, _BLOB.size, Kind.BLOB)
    _, digest, total, offset = _BLOB.unpack_from(view)
    piece = view[_BLOB.size :]
    # Receivers write pieces at their offsets into files: one outside would make the file as long as it says.
    if offset + len(piece) > total:
        raise BadMessage(f"piece of a blob at {offset} + {len(piece)} beyond its {total} bytes")
    return BlobPiece(digest, total, offset, piece)


def pack_need(digests: Sequence[bytes]) -> bytes:
    """Return NEED, which asks for the blobs of these digests."""
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


def pack_heartbeat(beat: Heartbeat, kind: Kind = Kind.HEARTBEAT) -> bytes:
    """Pack HEARTBEAT, or STARTED."""
    n = len(beat.keys)
    head = _BEAT.pack(kind, n, beat.manager, beat.sent_ns, beat.offset_ns)
    return head + struct.pack(f"<{n}Q{n}q{n}H", *beat.keys, *beat.starts, *beat.workers)


def unpack_heartbeat(message: Buffer) -> Heartbeat:
    """Parse HEARTBEAT or STARTED.

    Raises:
        BadMessage: its length is wrong.
    """
    view = expect(message, _BEAT.size, Kind.HEARTBEAT, Kind.STARTED)
    _, n, manager, sent_ns, offset_ns = _BEAT.unpack_from(view)
    exact(view, _BEAT.size + n * 18, Kind.HEARTBEAT)
    numbers = struct.unpack_from(f"<{n}Q{n}q{n}H", view, _BEAT.size)
    return Heartbeat(manager, sent_ns, offset_ns, numbers[:n], numbers[n : 2 * n], numbers[2 * n :])


def pack_credit(credit: Credit) -> bytes:
    """Return CREDIT: of one manager to the interchange, or of all of them to the client."""
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
    """Return ACK for all messages of results up to a sequence number."""
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
    """Return CANCEL for keys; with ``kill`` also for those that have started."""
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
    """Return DRAIN in one of its modes."""
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
    """Return EXIT with a code for programs and a reason for people."""
    return _CODED.pack(Kind.EXIT, code) + reason.encode(errors="replace")


def unpack_exit(message: Buffer) -> tuple[ExitCode, str]:
    """Parse EXIT; unknown codes count as FAILED.

    Raises:
        BadMessage: it is too short.
    """
    view = expect(message, _CODED.size, Kind.EXIT)
    # A newer side may have codes that this one does not know: it leaves all the same.
    code = ExitCode(view[1]) if view[1] in set(ExitCode) else ExitCode.FAILED
    return code, str(view[_CODED.size :], "utf-8", "replace")


def pack_again() -> bytes:
    """Return AGAIN, which asks a peer that is not known for HELLO."""
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
    # Control characters would let a node forge lines of the log, or steer the terminal that shows it.
    return number, "".join(one if one.isprintable() else " " for one in text)


@dataclass(frozen=True, slots=True)
class LossRecord:
    """A Loss without its place, which the reader knows by the manager number and the worker."""

    kind: str
    exit_code: int | None = None
    signal: int | None = None
    reason: str = ""
    stderr_tail: str = ""
    pid: int = 0


def pack_loss(loss: Loss) -> bytes:
    """Pack a loss; of its place only the pid travels."""
    pid = loss.place.pid if loss.place else 0
    return encode(LossRecord(loss.kind.name, loss.exit_code, loss.signal, loss.reason, loss.stderr_tail, pid))


def unpack_loss(payload: Buffer, place: Place | None) -> Loss:
    """Parse a loss; ``place`` is where the try ran as far as the reader knows.

    Raises:
        BadMessage: no such record, or an unknown kind of loss.
    """
    record = decode(LossRecord, payload)
    if record.kind not in LossKind.__members__:
        raise BadMessage(f"unknown kind of loss {record.kind!r}")
    # The directory knows the process that has the rank now; the loss is of the one before.
    if place and record.pid and place.pid != record.pid:
        place = Place(place.executor, place.block, place.node, place.manager, place.worker, record.pid)
    return Loss(LossKind[record.kind], place, record.exit_code, record.signal, record.reason, record.stderr_tail)


_EVENTS = struct.Struct("<BxxxI")


@dataclass(frozen=True, slots=True)
class SampleRecord:
    """A Sample with plain types; ``key`` None for the node as a whole."""

    time_ns: int
    key: int | None
    pid: int
    processes: int
    cpu_percent: float
    cpu_user_s: float
    cpu_system_s: float
    memory_rss: int
    memory_percent: float
    disk_read: int
    disk_write: int
    net_sent: int | None = field(default=None, metadata=LEFT_OUT)
    net_received: int | None = field(default=None, metadata=LEFT_OUT)


@dataclass(frozen=True, slots=True)
class FileRecord:
    """How far a file of a task is, with plain types; fields as of ``FileProgress``."""

    key: int
    url: str
    direction: str
    moved: int
    total: int = -1
    speed: float = 0.0
    since_s: float = 0.0
    done: bool = False


@dataclass(frozen=True, slots=True)
class NodeEvents:
    """Samples taken at one time, events that could not be kept, and files that move for long."""

    samples: tuple[SampleRecord, ...] = ()
    lost: int = 0
    files: tuple[FileRecord, ...] | None = field(default=None, metadata=LEFT_OUT)
    node: str | None = field(default=None, metadata=LEFT_OUT)


def pack_samples(manager: int, samples: Sequence[Sample], lost: int = 0, node: str | None = None) -> bytes:
    """Return EVENTS with samples of tasks and of the node, and the number of events that were lost.

    ``node`` is named where it is not that of the manager.
    """
    records = tuple(SampleRecord(*(getattr(sample, name) for name in SampleRecord.__slots__)) for sample in samples)
    return _EVENTS.pack(Kind.EVENTS, manager) + encode(NodeEvents(records, lost, node=node))


def pack_files(manager: int, told: Sequence[tuple[int, bytes]]) -> bytes:
    """Return EVENTS with the progress of files, as workers wrote it, by tasks' keys; other text is left out."""
    files = []
    for key, payload in told:
        try:
            files.append(FileRecord(key, *json.loads(payload)))
        except (ValueError, TypeError):  # a task may write into the worker's descriptors
            continue
    return _EVENTS.pack(Kind.EVENTS, manager) + encode(NodeEvents(files=tuple(files)))


def unpack_files(message: Buffer) -> list[tuple[TryKey, FileProgress]]:
    """Parse the files in EVENTS.

    Raises:
        BadMessage: it is none.
    """
    body = bytes(expect(message, _EVENTS.size, Kind.EVENTS)[_EVENTS.size :])
    found = decode(NodeEvents, body) if b'"files"' in body else NodeEvents()  # most are samples, which are not few
    return [
        (TryKey(one.key), FileProgress(one.url, one.direction, one.moved, one.total, one.speed, one.since_s, one.done))
        for one in found.files or ()
    ]


def unpack_samples(message: Buffer) -> tuple[int, tuple[Sample, ...], int, str | None]:
    """Parse EVENTS into manager number, samples, the number of lost events, and the node if it is not the manager's.

    Raises:
        BadMessage: it is none.
    """
    view = expect(message, _EVENTS.size, Kind.EVENTS)
    _, manager = _EVENTS.unpack_from(view)
    found = decode(NodeEvents, view[_EVENTS.size :])
    return manager, tuple(_sample(record) for record in found.samples), found.lost, found.node


def _sample(record: SampleRecord) -> Sample:
    values = {name: getattr(record, name) for name in SampleRecord.__slots__}
    key = record.key
    values["key"] = None if key is None else TryKey(key)
    return Sample(**values)
