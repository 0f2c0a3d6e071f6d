"""What all parts of the interchange's mind share: queues, managers, blobs, and the trays of outgoing messages."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from flow_core.interfaces.outcome import Verdict
from flow_executors.interchange.blobs import Blobs
from flow_executors.interchange.classes import Slice, Waiting
from flow_executors.interchange.pool import Manager, Pool
from flow_executors.wire.frames import DEFAULT_CLASS, pack_need, pack_recall, pack_results, pack_tasks
from flow_executors.wire.kinds import Buffer
from flow_executors.wire.single import TOLD_AT


class Desk:
    """The state of the interchange.

    Attributes:
        up: Messages for the client, in order.
        known: Results for the client that it knows already, told by their manager: they do not hurry.
        down: Messages for managers, with their address.
        waiting: Tasks that are at no manager.
        pool: The managers.
        blobs: Function bodies and large buffers.
        specs: The SPEC message of each class.
        time_ns: Wall time.
        expected: Blocks that were asked for and of which no manager has come yet.
        joined_at: When a manager last came.
    """

    __slots__ = ("blobs", "down", "expected", "joined_at", "known", "pool", "specs", "time_ns", "up", "waiting")

    def __init__(self, time_ns: Callable[[], int]) -> None:
        self.up: list[Buffer] = []
        self.known: list[Buffer] = []
        self.down: list[tuple[bytes, Buffer]] = []
        self.waiting = Waiting()
        self.pool = Pool()
        self.blobs = Blobs()
        self.specs: dict[int, Buffer] = {}
        self.time_ns = time_ns
        self.expected: set[str] = set()
        self.joined_at = 0.0

    def pass_up(self, results: Buffer) -> None:
        """Put results for the client into the tray."""
        (self.known if results[TOLD_AT] else self.up).append(results)

    def take_up(self) -> list[Buffer]:
        """Return all that is for the client, once. What it knows is older than the rest, or as old."""
        messages = [*self.known, *self.up]
        self.known.clear()
        self.up.clear()
        return messages

    def send(self, manager: Manager, message: Buffer) -> None:
        """Put a message for a manager into the tray, unless its connection is gone."""
        if manager.cut_off_at is None:
            self.down.append((manager.peer, message))

    def give(self, manager: Manager, class_id: int, taken: Slice) -> None:
        """Send tasks to a manager, with what it needs to know before."""
        self.send_spec(manager, class_id)
        lacking = taken.digests - manager.known
        if lacking:
            manager.learn(lacking)
            self.ask_for([digest for digest in lacking if not self.send_blob(manager.peer, digest)], manager.peer)
        body = taken.bodies[0] if len(taken.bodies) == 1 else b"".join(taken.bodies)
        self.send(manager, pack_tasks(class_id, sorted(taken.digests), taken.keys, taken.lengths, body))
        manager.idle_since = None
        self.pool.settle(manager)

    def recall(self, manager: Manager, count: int) -> None:
        """Ask a manager to give back tasks that it has not started, unless it was asked already."""
        if not manager.recalling:
            manager.recalling = True
            self.send(manager, pack_recall(count))

    def send_blob(self, peer: bytes, digest: bytes) -> bool:
        """Send a blob to a manager; False when it is not here."""
        messages = self.blobs.get(digest)
        self.down.extend((peer, message) for message in messages or ())
        return messages is not None

    def ask_for(self, digests: Iterable[bytes], peer: bytes) -> None:
        """Ask the client for blobs that a manager waits for."""
        fresh = self.blobs.want(digests, peer)
        if fresh:
            self.up.append(pack_need(fresh))

    def send_spec(self, manager: Manager, class_id: int) -> None:
        """Tell a manager of a class before its first task of it."""
        if class_id != DEFAULT_CLASS and class_id not in manager.classes and class_id in self.specs:
            manager.classes.add(class_id)
            self.send(manager, self.specs[class_id])

    def report(self, keys: Sequence[int], verdict: Verdict, payload: bytes = b"", number: int = 0) -> None:
        """Report outcomes that are made here; ``number`` is the manager's who had the tasks."""
        zeros, count = [0] * len(keys), len(keys)
        statuses = bytes([verdict]) * count
        self.up.append(pack_results(number, 0, 0, keys, zeros, zeros, zeros, statuses, [payload] * count))
