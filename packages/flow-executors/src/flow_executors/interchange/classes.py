"""Tasks that wait in the interchange: one queue a class, of whole client batches, cut only if they must be."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import accumulate

from flow_core.interfaces.call import DEFAULT_SPEC, TaskSpec
from flow_executors.wire.frames import DEFAULT_CLASS, TaskBatch

AGEING_S = 60.0
"""Seconds of waiting that weigh as much as one step of priority."""


@dataclass(slots=True)
class Slice:
    """Tasks cut from the front of a queue: columns of equal length, records in ``bodies``, blobs that they need."""

    keys: list[int]
    lengths: list[int]
    bodies: list[memoryview]
    digests: set[bytes]


class _Waiting:
    """A batch of which the first ``at`` tasks are gone."""

    __slots__ = ("arrived", "at", "batch", "ends")

    def __init__(self, batch: TaskBatch, arrived: float) -> None:
        self.batch = batch
        self.arrived = arrived
        self.at = 0
        self.ends: list[int] | None = None

    def cut(self, count: int, into: Slice) -> int:
        batch, start = self.batch, self.at
        stop = min(start + count, len(batch.keys))
        into.digests.update(batch.digests)
        into.keys += batch.keys[start:stop]
        into.lengths += batch.lengths[start:stop]
        into.bodies.append(self._body(start, stop))
        self.at = stop
        return stop - start

    def _body(self, start: int, stop: int) -> memoryview:
        if start == 0 and stop == len(self.batch.keys):
            return self.batch.body
        if self.ends is None:
            self.ends = [0, *accumulate(self.batch.lengths)]
        return self.batch.body[self.ends[start] : self.ends[stop]]


class ClassQueue:
    """The waiting tasks of one class, first in first out."""

    __slots__ = ("_batches", "class_id", "count", "spec")

    def __init__(self, class_id: int, spec: TaskSpec) -> None:
        self.class_id = class_id
        self.spec = spec
        self.count = 0
        self._batches: deque[_Waiting] = deque()

    def append(self, batch: TaskBatch, now: float) -> None:
        """Add tasks at the end."""
        if batch.keys:
            self._batches.append(_Waiting(batch, now))
            self.count += len(batch.keys)

    def put_back(self, batch: TaskBatch, now: float) -> None:
        """Add tasks that were out already in front of all others."""
        if batch.keys:
            self._batches.appendleft(_Waiting(batch, now))
            self.count += len(batch.keys)

    def take(self, count: int) -> Slice:
        """Take up to so many tasks from the front."""
        taken = Slice([], [], [], set())
        while count and self._batches:
            head = self._batches[0]
            got = head.cut(count, taken)
            count -= got
            self.count -= got
            if head.at == len(head.batch.keys):
                self._batches.popleft()
        return taken

    def remove(self, keys: Collection[int]) -> list[int]:
        """Take given tasks out, wherever they stand; return the keys found."""
        wanted = set(keys)
        found: list[int] = []
        kept: deque[_Waiting] = deque()
        for waiting in self._batches:
            rest = waiting.batch.keys[waiting.at :]
            hit = wanted.intersection(rest)
            if not hit:
                kept.append(waiting)
                continue
            found += hit
            remaining = _without(waiting.batch, waiting.at, hit)
            if remaining.keys:
                kept.append(_Waiting(remaining, waiting.arrived))
        self._batches = kept
        self.count -= len(found)
        return found

    def clear(self) -> list[int]:
        """Take all tasks out; return their keys."""
        keys = [key for waiting in self._batches for key in waiting.batch.keys[waiting.at :]]
        self._batches.clear()
        self.count = 0
        return keys

    def urgency(self, now: float) -> tuple[float, float]:
        """Sort key: most urgent first. Priority grows with waiting, equals go by arrival."""
        arrived = self._batches[0].arrived if self._batches else now
        return (-(self.spec.priority + (now - arrived) / AGEING_S), arrived)


def _without(batch: TaskBatch, at: int, hit: set[int]) -> TaskBatch:
    rows = [
        (key, size, record)
        for key, size, record in list(zip(batch.keys, batch.lengths, batch.records(), strict=True))[at:]
        if key not in hit
    ]
    body = memoryview(b"".join(row[2] for row in rows))
    return TaskBatch(batch.class_id, batch.digests, tuple(row[0] for row in rows), tuple(row[1] for row in rows), body)


class Waiting:
    """All queues by class."""

    __slots__ = ("_queues", "specs")

    def __init__(self) -> None:
        self._queues: dict[int, ClassQueue] = {}
        self.specs: dict[int, TaskSpec] = {DEFAULT_CLASS: DEFAULT_SPEC}

    def queue(self, class_id: int) -> ClassQueue | None:
        """Return the queue of a class; None when the class was never described."""
        found = self._queues.get(class_id)
        if found is None and class_id in self.specs:
            found = self._queues[class_id] = ClassQueue(class_id, self.specs[class_id])
        return found

    def by_urgency(self, now: float) -> Sequence[ClassQueue]:
        """Return the queues that hold anything, most urgent first."""
        busy = [queue for queue in self._queues.values() if queue.count]
        if len(busy) > 1:
            busy.sort(key=lambda queue: queue.urgency(now))
        return busy

    @property
    def count(self) -> int:
        """Tasks waiting in all classes."""
        return sum(queue.count for queue in self._queues.values())

    def remove(self, keys: Collection[int]) -> list[int]:
        """Take given tasks out of whatever queue; return the keys found."""
        return [key for queue in self._queues.values() if queue.count for key in queue.remove(keys)]
