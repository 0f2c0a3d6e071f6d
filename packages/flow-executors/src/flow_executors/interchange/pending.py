"""Tasks that wait in the interchange: one queue a class, of whole client batches, cut only if they must be.

Urgency is priority that grows with waiting. As it grows equally fast for all, the order of two tasks never changes:
each has a fixed rank, and queues can stand in heaps. Classes that ask for the same of a node form a *shape*: where a
task of one finds no room, none of the others does.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import accumulate, count

from flow_core.interfaces.call import DEFAULT_SPEC, Resources, TaskSpec
from flow_executors.common.resources import Capacity, ResourceRequest
from flow_executors.common.task_ranks import RankRequest
from flow_executors.wire.messages import DEFAULT_CLASS
from flow_executors.wire.tasks import TaskBatch

AGEING_S = 60.0
"""Seconds of waiting that weigh as much as one step of priority: no task waits for ever behind more urgent ones."""

Rank = tuple[float, int]
"""Sort key of a task: the most urgent is least."""
# Rank of a queue without tasks: behind all others.
LAST: Rank = (float("inf"), 0)
_TICKETS = count(1)


@dataclass(slots=True)
class QueuedBatch:
    """Tasks cut from the front of a queue: columns of equal length, records in ``bodies``, blobs that they need."""

    keys: list[int] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    bodies: list[memoryview] = field(default_factory=list)
    digests: set[bytes] = field(default_factory=set)


class _PendingTask:
    """A batch of which the first ``at`` tasks are gone."""

    __slots__ = ("at", "batch", "ends", "rank")

    def __init__(self, batch: TaskBatch, rank: Rank) -> None:
        self.batch = batch
        self.rank = rank
        self.at = 0
        self.ends: list[int] | None = None

    def cut(self, count: int, into: QueuedBatch) -> int:
        batch, start = self.batch, self.at
        stop = min(start + count, len(batch.keys))
        into.digests.update(batch.digests)
        into.keys += batch.keys[start:stop]
        into.lengths += batch.lengths[start:stop]
        into.bodies.append(self._body(start, stop))
        self.at = stop
        return stop - start

    def _body(self, start: int, stop: int) -> memoryview:
        # A whole batch goes on as it came, without a look at its records.
        if start == 0 and stop == len(self.batch.keys):
            return self.batch.body
        # Computed at the first cut only: most batches are never cut.
        if self.ends is None:
            self.ends = [0, *accumulate(self.batch.lengths)]
        return self.batch.body[self.ends[start] : self.ends[stop]]


class ClassQueue:
    """The waiting tasks of one class, first in first out.

    Attributes:
        class_id: The class.
        spec: What it is.
        count: Tasks that wait.
        rank: That of the first task; beyond all others while there is none.
        ticket: Number of its entry in the heap of its shape; 0 while it has none.
        queued_rank: Rank of that entry: never more than the true one.
    """

    __slots__ = ("_batches", "_tally", "class_id", "count", "queued_rank", "rank", "spec", "ticket")

    def __init__(self, class_id: int, spec: TaskSpec, tally: list[int] | None = None) -> None:
        """``tally`` holds one number: tasks of all queues that share it."""
        self.class_id = class_id
        self.spec = spec
        self.count = 0
        self._tally = tally if tally is not None else [0]
        self.rank: Rank = LAST
        self.ticket = 0
        self.queued_rank: Rank = LAST
        self._batches: deque[_PendingTask] = deque()

    @property
    def since(self) -> float:
        """When the first task came, as far as its rank tells."""
        return (self.rank[0] + self.spec.priority) * AGEING_S

    def append(self, batch: TaskBatch, arrived: float, number: int = 0) -> None:
        """Add tasks at the end; ``number`` orders batches that arrived at once."""
        # Time and priority as one number: as all urgencies grow equally fast, the order never changes.
        self._batches.append(_PendingTask(batch, (arrived / AGEING_S - self.spec.priority, number)))
        self._more(len(batch.keys))
        self.rank = self._batches[0].rank

    def put_back(self, batch: TaskBatch, arrived: float, number: int = 0) -> None:
        """Add tasks that were out already in front of all others; they have waited at least as long as the first."""
        # At least the first one's rank, or the queue's heap would not be ordered by its first task.
        rank = min(self.rank, (arrived / AGEING_S - self.spec.priority, number))
        self._batches.appendleft(_PendingTask(batch, rank))
        self._more(len(batch.keys))
        self.rank = rank

    def _more(self, count: int) -> None:
        self.count += count
        self._tally[0] += count

    def take(self, count: int) -> QueuedBatch:
        """Take up to so many tasks from the front."""
        taken = QueuedBatch()
        self.take_into(taken, count)
        return taken

    def take_into(self, taken: QueuedBatch, count: int) -> None:
        """Take up to so many tasks from the front, adding them to others."""
        batches = self._batches
        while count and batches:
            head = batches[0]
            got = head.cut(count, taken)
            count -= got
            self._more(-got)
            if head.at == len(head.batch.keys):
                batches.popleft()
                self.rank = batches[0].rank if batches else LAST

    def remove(self, keys: Collection[int]) -> list[int]:
        """Take given tasks out, wherever they stand; return the keys found."""
        wanted = set(keys)
        found: list[int] = []
        kept: deque[_PendingTask] = deque()
        for waiting in self._batches:
            rest = waiting.batch.keys[waiting.at :]
            hit = wanted.intersection(rest)
            # Untouched batches stay whole: cutting one copies its records.
            if not hit:
                kept.append(waiting)
                continue
            found += hit
            remaining = _without(waiting.batch, waiting.at, hit)
            if remaining.keys:
                kept.append(_PendingTask(remaining, waiting.rank))
        self._batches = kept
        self._more(-len(found))
        self.rank = kept[0].rank if kept else LAST
        return found

    def clear(self) -> list[int]:
        """Take all tasks out; return their keys."""
        keys = self.pending()
        self._batches.clear()
        self._more(-self.count)
        self.rank = LAST
        return keys

    def find(self, key: int) -> tuple[Rank, int] | None:
        """Return the rank of a task and how many of this queue are before it; None if it does not wait here."""
        ahead = 0
        for waiting in self._batches:
            rest = waiting.batch.keys[waiting.at :]
            if key in rest:
                return waiting.rank, ahead + rest.index(key)
            ahead += len(rest)
        return None

    def before(self, rank: Rank) -> int:
        """Return how many tasks of this queue are more urgent than that."""
        return sum(len(one.batch.keys) - one.at for one in self._batches if one.rank < rank)

    def pending(self) -> list[int]:
        """Return the keys of all that wait, in order."""
        return [key for waiting in self._batches for key in waiting.batch.keys[waiting.at :]]


def _without(batch: TaskBatch, at: int, hit: set[int]) -> TaskBatch:
    rows = [
        (key, size, record)
        for key, size, record in list(zip(batch.keys, batch.lengths, batch.records(), strict=True))[at:]
        if key not in hit
    ]
    body = memoryview(b"".join(row[2] for row in rows))
    return TaskBatch(batch.class_id, batch.digests, tuple(row[0] for row in rows), tuple(row[1] for row in rows), body)


class RequestClass:
    """The classes that ask for the same of a node, most urgent first.

    Attributes:
        resources: What a task takes.
        need_s: Time that its block must have left.
        avoid: Nodes on which they failed before.
        ranks: What they ask for as tasks of ranks; None where they are none.
        reserved: Numbers of the managers that are kept free for it.
        ticket: Number of its entry in the heap of shapes; 0 while it has none.
        queued_rank: Rank of that entry: never more than the true one.
    """

    __slots__ = ("_demands", "_heap", "avoid", "need_s", "queued_rank", "ranks", "reserved", "resources", "ticket")

    def __init__(self, resources: Resources, need_s: float, avoid: tuple[str, ...] = ()) -> None:
        self.resources = resources
        self.need_s = need_s
        self.avoid = avoid
        self.ranks = RankRequest.of(resources)
        self.reserved: set[int] = set()
        self.ticket = 0
        self.queued_rank: Rank = LAST
        self._heap: list[tuple[Rank, int, ClassQueue]] = []
        self._demands: dict[float, ResourceRequest] = {}

    def demand(self, capacity: Capacity) -> ResourceRequest:
        """Return what one task takes on such a node."""
        # Of a capacity only this bears on the demand, and few values occur.
        found = self._demands.get(capacity.cores_per_worker)
        if found is None:
            found = ResourceRequest.of(TaskSpec(self.resources), capacity)
            self._demands[capacity.cores_per_worker] = found
        return found

    def enqueue(self, queue: ClassQueue) -> None:
        """Let a queue stand where its first task belongs."""
        # Older entries of the queue stay in the heap, and are known by their ticket: to remove them would be a search.
        queue.ticket, queue.queued_rank = next(_TICKETS), queue.rank
        heappush(self._heap, (queue.rank, queue.ticket, queue))

    def first(self) -> ClassQueue | None:
        """Return the queue with the most urgent task, or None if nothing waits."""
        heap = self._heap
        while heap:
            rank, ticket, queue = heap[0]
            # The entry that counts may be too early, never too late: its tasks may be gone, and the queue stands again
            # further back.
            if ticket == queue.ticket and rank == queue.rank:
                return queue
            heappop(heap)
            if ticket == queue.ticket:
                queue.ticket = 0
                if queue.count:
                    self.enqueue(queue)
        return None

    @property
    def rank(self) -> Rank:
        """That of its most urgent task."""
        queue = self.first()
        return LAST if queue is None else queue.rank

    def clear(self) -> list[int]:
        """Take all tasks out; return their keys."""
        keys = []
        for _, _, queue in self._heap:
            keys += queue.clear()
            queue.ticket = 0
        self._heap.clear()
        return keys


class PendingQueues:
    """All queues: that of the default class, and those of others by shape.

    Entries of heaps are left behind when they are no longer true, and known by their ticket: each queue and each shape
    has at most one that counts.

    Attributes:
        specs: What each class is.
        default: The queue of the default class.
        fresh: Tasks of other classes came since this was last set to False.
    """

    __slots__ = ("_arrivals", "_heap", "_queues", "_shapes", "_tally", "default", "fresh", "specs")

    def __init__(self) -> None:
        self.specs: dict[int, TaskSpec] = {DEFAULT_CLASS: DEFAULT_SPEC}
        self.default = ClassQueue(DEFAULT_CLASS, DEFAULT_SPEC)
        self._queues: dict[int, ClassQueue] = {DEFAULT_CLASS: self.default}
        self._shapes: dict[tuple[Resources, float, tuple[str, ...]], RequestClass] = {}
        self._heap: list[tuple[Rank, int, RequestClass]] = []
        self._tally = [0]
        self._arrivals = 0
        self.fresh = False

    def add(self, batch: TaskBatch, now: float) -> bool:
        """Add tasks at the end of their class; False if that was never described."""
        queue = self._queue(batch.class_id)
        if queue is None:
            return False
        self._arrivals += 1
        if batch.keys:
            queue.append(batch, now, self._arrivals)
            self._enqueue(queue)
        return True

    def put_back(self, batch: TaskBatch, now: float) -> bool:
        """Add tasks that were out in front of their class; False if that was never described."""
        queue = self._queue(batch.class_id)
        if queue is None:
            return False
        if batch.keys:
            queue.put_back(batch, now, self._arrivals)
            self._enqueue(queue)
        return True

    def _queue(self, class_id: int) -> ClassQueue | None:
        found = self._queues.get(class_id)
        # A queue is made with the first task of its class: specs alone cost nothing.
        if found is None and class_id in self.specs:
            found = self._queues[class_id] = ClassQueue(class_id, self.specs[class_id], self._tally)
        return found

    def _enqueue(self, queue: ClassQueue) -> None:
        """Let a queue stand where its first task belongs."""
        # The default class has no shape: its tasks fit wherever there is a slot.
        if queue is self.default:
            return
        self.fresh = True
        key = (queue.spec.resources, queue.spec.needed_s, queue.spec.avoid or ())
        shape = self._shapes.get(key)
        if shape is None:
            shape = self._shapes[key] = RequestClass(*key)
        # An entry that stands too early is mended when it is met; one too late would never be met in time.
        if not queue.ticket or queue.rank < queue.queued_rank:
            shape.enqueue(queue)
        if not shape.ticket or shape.rank < shape.queued_rank:
            self._enqueue_shape(shape)

    def _enqueue_shape(self, shape: RequestClass) -> None:
        shape.ticket, shape.queued_rank = next(_TICKETS), shape.rank
        heappush(self._heap, (shape.queued_rank, shape.ticket, shape))

    @property
    def special(self) -> int:
        """Tasks of other classes than the default one that wait."""
        return self._tally[0]

    def shapes(self) -> Iterator[RequestClass]:
        """Yield the shapes for which tasks wait, most urgent first; each must be given back by ``requeue``."""
        heap = self._heap
        while heap:
            rank, ticket, shape = heappop(heap)
            if ticket != shape.ticket:
                continue
            shape.ticket = 0
            now_is = shape.rank
            if now_is == rank:
                yield shape
            elif now_is != LAST:
                self._enqueue_shape(shape)

    def special_queues(self) -> list[ClassQueue]:
        """Return the queues with tasks of other classes than the default one: for questions, not for placing."""
        return [queue for queue in self._queues.values() if queue.count and queue is not self.default]

    def of_ranks(self) -> list[RequestClass]:
        """Return the shapes of ranks for which tasks wait. Looks at all shapes: for questions, not for placing."""
        return [shape for shape in self._shapes.values() if shape.ranks is not None and shape.first() is not None]

    def requeue(self, shapes: Collection[RequestClass]) -> None:
        """Put shapes back that ``shapes`` yielded; those for which nothing waits any more are left out."""
        for shape in shapes:
            if not shape.ticket and shape.first() is not None:
                self._enqueue_shape(shape)

    def locate(self, key: int) -> tuple[ClassQueue, int, int] | None:
        """Return the queue of a task, how many tasks come before it, and how many of these have a higher priority."""
        for queue in self._queues.values():
            found = queue.find(key) if queue.count else None
            if found is not None:
                rank, ahead = found
                # All queues are looked at: this answers a question of the user's, it is no part of dispatching.
                others = [(one, one.before(rank)) for one in self._queues.values() if one is not queue and one.count]
                urgent = sum(number for one, number in others if one.spec.priority > queue.spec.priority)
                return queue, ahead + sum(number for _, number in others), urgent
        return None

    @property
    def count(self) -> int:
        """Tasks waiting in all classes."""
        return self.default.count + self._tally[0]

    def pending(self) -> list[int]:
        """Return the keys of all that wait."""
        return [key for queue in self._queues.values() for key in queue.pending()]

    def remove(self, keys: Collection[int]) -> list[int]:
        """Take given tasks out of whatever queue; return the keys found."""
        return [key for queue in self._queues.values() if queue.count for key in queue.remove(keys)]
