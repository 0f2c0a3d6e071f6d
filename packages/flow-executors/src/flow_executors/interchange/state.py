"""The state that all parts of the interchange's core share: queues, managers, blobs, outgoing messages. Pure."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence

from flow_core.interfaces.outcome import Verdict
from flow_executors.interchange.managers import ManagerPool, ManagerRecord
from flow_executors.interchange.pending import PendingQueues, QueuedBatch
from flow_executors.wire.kinds import Buffer
from flow_executors.wire.messages import DEFAULT_CLASS, BlobPiece, pack_need, pack_recall
from flow_executors.wire.results import pack_results
from flow_executors.wire.tasks import TOLD_AT, pack_tasks

MAX_BLOB_BYTES = 256 << 20
"""Most bytes of blobs that are kept, the least recently used are dropped first. Only the magnitude matters."""
MAX_BLOBS = 4096
"""Most blobs that are kept: a function whose values change at each call has one a call. A manager that needs a
dropped one asks for it."""


class BlobRelay:
    """Messages by digest, the least recently used ones forgotten first, and the peers that wait for each."""

    __slots__ = ("_arrived", "_limit", "_messages", "_size", "wanted")

    def __init__(self, limit: int = MAX_BLOB_BYTES) -> None:
        self._limit = limit
        self._messages: OrderedDict[bytes, list[bytes]] = OrderedDict()
        self._arrived: dict[bytes, tuple[int, list[bytes]]] = {}  # incomplete: bytes so far, messages
        self._size = 0
        self.wanted: dict[bytes, set[bytes]] = {}
        """Digest -> peers that wait for it."""

    def add(self, piece: BlobPiece, message: bytes) -> bool:
        """Keep one message of a blob; True when the blob is whole with it."""
        if piece.digest in self._messages:
            return True
        size, messages = self._arrived.pop(piece.digest, (0, []))
        if piece.offset != size:
            return False  # a piece out of turn: what came before is of no use
        messages.append(message)
        size += len(piece.piece)
        if size < piece.total:
            self._arrived[piece.digest] = (size, messages)
            return False
        self._messages[piece.digest] = messages
        self._size += sum(map(len, messages))
        self._shrink(piece.digest)
        return True

    def get(self, digest: bytes) -> list[bytes] | None:
        """Return the messages of a whole blob."""
        messages = self._messages.get(digest)
        if messages is not None:
            self._messages.move_to_end(digest)
        return messages

    def forget_peer(self, peer: bytes) -> None:
        """Forget a peer that is gone: it waits for no blobs any more."""
        for digest in [digest for digest, peers in self.wanted.items() if peer in peers]:
            self.wanted[digest].discard(peer)
            if not self.wanted[digest]:
                del self.wanted[digest]

    def want(self, digests: Iterable[bytes], peer: bytes) -> list[bytes]:
        """Note that a peer waits; return the digests that were not asked for yet."""
        fresh = []
        for digest in digests:
            if digest not in self.wanted:
                fresh.append(digest)
            self.wanted.setdefault(digest, set()).add(peer)
        return fresh

    def _shrink(self, newest: bytes) -> None:
        while len(self._messages) > 1 and (self._size > self._limit or len(self._messages) > MAX_BLOBS):
            digest, messages = self._messages.popitem(last=False)
            # The blob that has just come is wanted by somebody, however large it is.
            if digest == newest:
                self._messages[digest] = messages
                continue
            self._size -= sum(map(len, messages))


class InterchangeState:
    """The state of the interchange.

    Attributes:
        to_client: Messages for the client, in order.
        known_to_client: Results for the client that it knows already, sent by their manager itself: they do not hurry.
        to_managers: Messages for managers, with their address.
        waiting: Tasks that are at no manager.
        pool: The managers.
        blobs: Function bodies and large buffers.
        specs: The SPEC message of each class.
        time_ns: Wall time.
        expected: Blocks that were asked for and of which no manager has come yet.
        joined_at: When a manager last came.
    """

    __slots__ = (
        "blobs",
        "expected",
        "joined_at",
        "known_to_client",
        "pool",
        "specs",
        "time_ns",
        "to_client",
        "to_managers",
        "waiting",
    )

    def __init__(self, time_ns: Callable[[], int]) -> None:
        self.to_client: list[Buffer] = []
        self.known_to_client: list[Buffer] = []
        self.to_managers: list[tuple[bytes, Buffer]] = []
        self.waiting = PendingQueues()
        self.pool = ManagerPool()
        self.blobs = BlobRelay()
        self.specs: dict[int, Buffer] = {}
        self.time_ns = time_ns
        self.expected: set[str] = set()
        self.joined_at = 0.0

    def pass_to_client(self, results: Buffer) -> None:
        """Put results for the client among the outgoing messages."""
        # What the client knows does not wake it: it goes with the next message that does.
        (self.known_to_client if results[TOLD_AT] else self.to_client).append(results)

    def take_for_client(self) -> list[Buffer]:
        """Return all that is for the client, once. What it knows is older than the rest, or as old."""
        messages = [*self.known_to_client, *self.to_client]
        self.known_to_client.clear()
        self.to_client.clear()
        return messages

    def send(self, manager: ManagerRecord, message: Buffer) -> None:
        """Put a message for a manager among the outgoing messages, unless its connection is gone."""
        if manager.cut_off_at is None:
            self.to_managers.append((manager.peer, message))

    def give(self, manager: ManagerRecord, class_id: int, taken: QueuedBatch) -> None:
        """Send tasks to a manager, with what it needs to know before."""
        # Class and blobs go ahead of the tasks on the same connection, which keeps their order.
        self.send_spec(manager, class_id)
        lacking = taken.digests - manager.known
        if lacking:
            manager.learn(lacking)
            self.ask_for([digest for digest in lacking if not self.send_blob(manager.peer, digest)], manager.peer)
        body = taken.bodies[0] if len(taken.bodies) == 1 else b"".join(taken.bodies)
        self.send(manager, pack_tasks(class_id, sorted(taken.digests), taken.keys, taken.lengths, body))
        manager.idle_since = None
        self.pool.settle(manager)

    def recall(self, manager: ManagerRecord, count: int) -> None:
        """Ask a manager to give back tasks that it has not started, unless it was asked already."""
        if not manager.recalling:
            manager.recalling = True
            self.send(manager, pack_recall(count))

    def send_blob(self, peer: bytes, digest: bytes) -> bool:
        """Send a blob to a manager; False when it is not here."""
        messages = self.blobs.get(digest)
        self.to_managers.extend((peer, message) for message in messages or ())
        return messages is not None

    def ask_for(self, digests: Iterable[bytes], peer: bytes) -> None:
        """Ask the client for blobs that a manager waits for."""
        fresh = self.blobs.want(digests, peer)
        if fresh:
            self.to_client.append(pack_need(fresh))

    def send_spec(self, manager: ManagerRecord, class_id: int) -> None:
        """Send a manager the SPEC of a class, unless it has it already."""
        if class_id != DEFAULT_CLASS and class_id not in manager.classes and class_id in self.specs:
            manager.classes.add(class_id)
            self.send(manager, self.specs[class_id])

    def report(self, keys: Sequence[int], verdict: Verdict, payload: bytes = b"", number: int = 0) -> None:
        """Report outcomes that are made here; ``number`` is the manager's who had the tasks."""
        zeros, count = [0] * len(keys), len(keys)
        statuses = bytes([verdict]) * count
        self.to_client.append(pack_results(number, 0, 0, keys, zeros, zeros, zeros, statuses, [payload] * count))
