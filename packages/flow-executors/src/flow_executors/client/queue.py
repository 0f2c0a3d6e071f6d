"""The tasks of an executor on the client's side: every record is kept until its result, queues are per class.

Pure. Threads: ``add`` may be called by any thread at any time; all else under the owner's lock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from flow_core.interfaces.call import DEFAULT_SPEC, TaskSpec
from flow_executors.wire.frames import DEFAULT_CLASS, DIGEST_SIZE, pack_tasks
from flow_executors.wire.single import pack_task

FIRST_WINDOW = 1024
"""Tasks of a class that may be out before the interchange says more."""
_BATCH = 4096
_BATCH_BYTES = 1 << 20
_CLASS_AT = DIGEST_SIZE + 8


@dataclass(frozen=True, slots=True)
class Batch:
    """Tasks to send: one class, one message."""

    class_id: int
    digests: tuple[bytes, ...]
    message: bytes


class TaskQueues:
    """Tasks by key and by class.

    Attributes:
        records: Record of every task without outcome.
        unsent: Keys that wait here and were not sent.
        window: Tasks of a class that may be out.
    """

    __slots__ = ("_classes", "_out", "_queues", "_specs", "records", "unsent", "window")

    def __init__(self) -> None:
        self.records: dict[int, bytes] = {}
        self.unsent: set[int] = set()
        self.window = FIRST_WINDOW
        self._queues: dict[int, deque[int]] = {DEFAULT_CLASS: deque()}
        self._out: dict[int, int] = {DEFAULT_CLASS: 0}
        self._classes: dict[TaskSpec, int] = {DEFAULT_SPEC: DEFAULT_CLASS}
        self._specs: dict[int, TaskSpec] = {}

    def class_of(self, spec: TaskSpec) -> int | None:
        """Return the class of a spec; None if it has none yet."""
        return DEFAULT_CLASS if spec is DEFAULT_SPEC else self._classes.get(spec)

    def new_class(self, spec: TaskSpec) -> int:
        """Return the class of a spec, making it if needed. Under the lock."""
        known = self._classes.get(spec)
        if known is not None:
            return known
        class_id = len(self._classes)
        self._specs[class_id] = spec
        self._queues[class_id] = deque()
        self._out[class_id] = 0
        self._classes[spec] = class_id
        return class_id

    @property
    def specs(self) -> dict[int, TaskSpec]:
        """The classes other than the default one."""
        return self._specs

    def add(self, class_id: int, key: int, record: bytes) -> int:
        """Take one task; return how many wait in its class. Any thread."""
        self.records[key] = record
        self.unsent.add(key)
        queue = self._queues[class_id]
        queue.append(key)
        return len(queue)

    def blocked(self, class_id: int) -> bool:
        """Whether the window of a class is used up: then a result will lead to the next sending."""
        return self._out[class_id] >= self.window

    @property
    def sendable(self) -> bool:
        """Whether ``take`` has something."""
        for class_id, queue in self._queues.items():  # noqa: SIM110 - asked twice a task, and quicker so
            if queue and self._out[class_id] < self.window:
                return True
        return False

    def take(self) -> list[Batch]:
        """Take what may be sent, as messages of bounded size."""
        batches = []
        for class_id, queue in self._queues.items():
            while queue and (room := self.window - self._out[class_id]) > 0:
                batch = self._batch(class_id, queue, min(room, _BATCH))
                if batch is not None:
                    batches.append(batch)
        return batches

    def _batch(self, class_id: int, queue: deque[int], room: int) -> Batch | None:
        keys: list[int] = []
        records: list[bytes] = []
        size, unsent, known = 0, self.unsent, self.records
        while queue and len(keys) < room and size < _BATCH_BYTES:
            key = queue.popleft()
            if key in unsent:  # not cancelled meanwhile
                record = known[key]
                keys.append(key)
                records.append(record)
                size += len(record)
        if not keys:
            return None
        unsent.difference_update(keys)
        self._out[class_id] += len(keys)
        if len(keys) == 1 and class_id == DEFAULT_CLASS:
            digest = records[0][:DIGEST_SIZE]
            return Batch(class_id, (digest,), pack_task(digest, keys[0], records[0]))
        digests = tuple({record[:DIGEST_SIZE] for record in records})
        return Batch(class_id, digests, pack_tasks(class_id, digests, keys, list(map(len, records)), b"".join(records)))

    def finish(self, keys: Iterable[int]) -> None:
        """Tasks have their outcome: forget them. Keys not known are left out."""
        out, records, unsent, single = self._out, self.records, self.unsent, len(self._out) == 1
        for key in keys:
            record = records.pop(key, None)
            if record is None:
                continue
            if key in unsent:
                unsent.discard(key)
            else:
                out[DEFAULT_CLASS if single else class_of_record(record)] -= 1

    def withdraw(self, keys: Iterable[int]) -> list[int]:
        """Forget tasks that were not sent yet; return those."""
        found = [key for key in keys if key in self.unsent]
        for key in found:
            self.unsent.discard(key)
            del self.records[key]
        return found

    def sent(self) -> set[int]:
        """Return the keys that were sent and have no outcome."""
        return self.records.keys() - self.unsent

    def send_again(self, keys: Sequence[int]) -> None:
        """Put tasks that never arrived back in front, in their order."""
        for key in sorted(keys, reverse=True):
            record = self.records.get(key)
            if record is not None and key not in self.unsent:
                class_id = class_of_record(record)
                self._out[class_id] -= 1
                self.unsent.add(key)
                self._queues[class_id].appendleft(key)

    def digests_in_use(self) -> set[bytes]:
        """Return the digests of functions of tasks without outcome."""
        return {record[:DIGEST_SIZE] for record in list(self.records.values())}

    def clear(self) -> tuple[list[int], list[int]]:
        """Forget all tasks; return the keys never sent and those sent."""
        unsent, sent = sorted(self.unsent), sorted(self.sent())
        self.records.clear()
        self.unsent.clear()
        for class_id, queue in self._queues.items():
            queue.clear()
            self._out[class_id] = 0
        return unsent, sent


def class_of_record(record: bytes) -> int:
    """Return the class id in a task's record."""
    return int.from_bytes(record[_CLASS_AT : _CLASS_AT + 4], "little")
