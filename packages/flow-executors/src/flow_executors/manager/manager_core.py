"""Task assignment in a manager: its decisions, without any I/O. Times are seconds of one monotonic clock.

Tasks of the default class are prefetched into the workers' pipes, as many as about 20 ms of estimated work; all others
start only when their demand fits and a worker is idle. What lies in a pipe has not started, and can be read back. What
a worker needs while a result travels to the other side of a slow link and the next task comes back waits in the
manager: as much work as two round trips take.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import NamedTuple

from flow_executors.common.resources import Capacity, ResourceAllocation, ResourceRequest
from flow_executors.wire.direct_messages import WorkerLease
from flow_executors.wire.messages import DEFAULT_CLASS, ExitCode

Record = bytes | memoryview
Taken = tuple[int, int, tuple[int, ...]]
"""A worker's rank and pid, and the keys that were read back of what the script had given it."""


@dataclass(slots=True)
class TaskEntry:
    """A task of a class of its own, which the manager keeps until it is done."""

    key: int
    class_id: int
    record: Record
    demand: ResourceRequest


@dataclass(slots=True)
class WorkerEntry:
    """A worker as the core sees it.

    Attributes:
        rank: Its number.
        pid: Its process.
        depth: How many packets its pipe holds.
        held: Keys handed to it and not reported, oldest first; all but the first are surely not started.
        since: When it last took up or finished a task.
        task: The task of a class of its own that it runs, with the devices booked for it.
        termination: Why it is being killed, if it is, and under which key.
        fenced: Keys in its pipe that were cancelled; with True if even when started.
        reported: The key whose start was reported last.
        claimed: Whether the script gives it its tasks, not this manager.
        lent: Those of the keys held that the script has given it.
        moved: Keys that the script gave it and that were read back, until the script has confirmed that.
    """

    rank: int
    pid: int
    depth: int
    held: dict[int, None] = field(default_factory=dict)
    since: float = 0.0
    task: TaskEntry | None = None
    devices: tuple[str, ...] = ()
    termination: tuple[int, str] | None = None
    fenced: dict[int, bool] = field(default_factory=dict)
    reported: int = -1
    claimed: bool = False
    lent: tuple[int, ...] = ()
    moved: set[int] = field(default_factory=set)


class Assignment(NamedTuple):
    """Give a record to a worker. A tuple, since there is one a task."""

    rank: int
    key: int
    record: Record
    class_id: int = DEFAULT_CLASS
    devices: tuple[str, ...] = ()


@dataclass(slots=True)
class CoreEffects:
    """What is to be done besides handing out, gathered since it was last taken."""

    cancelled: list[int] = field(default_factory=list)
    returned: list[tuple[int, int, Record]] = field(default_factory=list)
    """(class id, key, record)"""
    kill: list[int] = field(default_factory=list)
    """ranks"""
    begun: list[tuple[int, int, float]] = field(default_factory=list)
    """(key, rank, since) of tasks that were to be cancelled, and run"""
    taken: list[Taken] = field(default_factory=list)
    """what the script does not know to be the manager's now"""

    def __bool__(self) -> bool:
        return bool(self.cancelled or self.returned or self.kill or self.begun or self.taken)


@dataclass(frozen=True, slots=True)
class WorkerLoss:
    """What a worker's death means: the try that ran in it (none if it was idle), and why if that was on purpose.

    ``walltime_s`` is the limit of that try, if it has one.
    """

    keys: tuple[int, ...] = ()
    termination: str = ""
    walltime_s: float | None = None


@dataclass(frozen=True, slots=True)
class ExitReason:
    """Why and how the manager leaves: ``code`` is sent to the interchange, and the process ends with ``status``."""

    code: ExitCode
    reason: str
    status: int = 0


TARGET_S = 0.020
"""Seconds of estimated work that a worker's pipe should hold: enough to hide the manager's wake-ups, which made
short tasks twenty times slower without prefetching, and little enough to be shared again when one takes long."""
TRIPS = 2.0
"""Round trips of work to take in advance for a slow link: more than one, as neither the estimate nor the rounding
is exact."""
# Tasks a worker below which none are taken in advance for the link: it costs such long tasks less than a quarter of
# their time.
_WORTH = 0.25
# Most tasks a slot that are taken in advance for the link: a bound on what one manager can hold back from others.
_MOST_A_SLOT = 2048
# Most bytes of them, so that large arguments do not fill the memory of the node.
_MOST_BYTES = 64 << 20
# Packets: a pipe of 64 pages holds a packet a page, and one page stays free so that a write never blocks. With 31 it
# had 0.89 of the throughput, with 15 (a default pipe) 0.56.
MAX_DEPTH = 63
# Short tasks weigh one half in the estimate, less where a report has fewer than half this many: long ones count at
# once.
_CAUTION = 8
# Seconds; keeps the division below from overflowing where clocks show no time at all.
_SHORTEST_S = 1e-6


class PrefetchEstimator:
    """Estimates how long tasks take, and from it how many a worker may hold (``depth``, counting the one that runs).

    Attributes:
        depth: 1, 2, 4 ... 63.
        estimate: Seconds that a task takes, 0 before the first.
        prefetch: Tasks to take beyond the slots: those in pipes, and as many again waiting when they are short; and
            those that the link needs.
    """

    __slots__ = ("_ahead", "_cap", "_limit", "_size", "_slots", "_trip_s", "depth", "estimate", "prefetch")

    def __init__(self, slots: int, limit: int | None) -> None:
        """``limit`` is the user's cap of tasks prefetched by this manager beyond its slots; None for none."""
        self._slots = max(1, slots)
        self._limit = limit
        self._cap = MAX_DEPTH if limit is None else min(MAX_DEPTH, 1 + -(-limit // self._slots))
        self._trip_s = 0.0
        self._size = 0.0
        self._ahead = 0
        self.estimate = 0.0
        self.depth = 1
        self.prefetch = 0

    @property
    def far(self) -> bool:
        """Whether the link is slow."""
        return self._trip_s > 0

    def link(self, trip_s: float) -> None:
        """Take in how many seconds a round trip to the interchange takes; 0 for a link that costs nothing."""
        self._trip_s = trip_s
        self._look_ahead()

    def sized(self, count: int, size: int) -> None:
        """Take in that ``count`` tasks had ``size`` bytes together; to be called where the link is slow."""
        mean = size / max(1, count)
        self._size += (mean - self._size) * (min(0.5, count / _CAUTION) if self._size else 1.0)

    def learn(self, count: int, busy_s: float) -> bool:
        """Take in that ``count`` tasks took ``busy_s`` together; return whether the depth changed.

        Long tasks are believed at once, short ones only when several have been seen.
        """
        if not count:
            return False
        mean = max(_SHORTEST_S, busy_s / count)
        weight = 1.0 if not self.estimate else min(0.5, count / _CAUTION)
        self.estimate += (mean - self.estimate) * weight
        if self._trip_s:
            self._look_ahead()
        wanted = TARGET_S / self.estimate
        # The bounds are not symmetric, since depths are powers of two rounded down.
        if 0.75 * self.depth <= wanted < 2 * self.depth:
            return False  # near enough: a depth that flickers costs messages
        depth = min(self._cap, _rounded(int(wanted)))
        changed = depth != self.depth
        self.depth = depth
        self.prefetch = self._wanted()
        return changed

    def _wanted(self) -> int:
        wanted = self._ahead
        if self.depth > 1:
            # Another pipeful waits in the manager where pipes are deepest: with one alone the throughput was 0.44 of
            # that.
            wanted += self._slots * self.depth * (2 if self.depth >= MAX_DEPTH else 1)
        return wanted if self._limit is None else min(wanted, self._limit)

    def _look_ahead(self) -> None:
        """Choose how many tasks to take for the link; small changes change nothing, since each costs a message."""
        if not (self._trip_s and self.estimate):
            ahead = 0
        else:
            each = TRIPS * self._trip_s / self.estimate
            ahead = min(math.ceil(self._slots * each), self._slots * _MOST_A_SLOT) if each >= _WORTH else 0
            if self._size:
                ahead = min(ahead, int(_MOST_BYTES / self._size))
            # A change of credit is a message to the interchange, and from there to the client.
            if 0.75 * self._ahead <= ahead <= 1.5 * self._ahead:
                return
        self._ahead = ahead
        self.prefetch = self._wanted()


def _rounded(depth: int) -> int:
    """Round down to a power of two, so that small changes of the estimate change nothing."""
    if depth >= MAX_DEPTH:
        return MAX_DEPTH
    return 1 << (depth.bit_length() - 1) if depth > 1 else 1


# Seconds without a result after which half of a worker's pipe is read back for an idle one. With 1 ms, 399 tasks of 1
# ms behind one of 500 ms ended after 442 ms, where 423 is ideal.
STEAL_AFTER_S = 0.001
TELL_AGAIN_S = 1.0
"""Seconds after which a worker is told once more that its block ends, where it has not answered: it may not have begun
with the task when it was told first."""
UNTOLD_S = 0.5
"""Seconds of age assumed of a task that the script gave to a worker directly and has not reported: it reports tasks
after a quarter of a second, half of this."""
# Seconds beyond its walltime before a task's worker is killed: the task's own timer raises in it first, and that error
# says more.
WALLTIME_GRACE_S = 5.0
BULKY = 3072
"""Bytes of a record above which it may need a file of its own: few of them are handed out in advance."""
# Bulky records a pipe: one that runs and one to follow, since each may hold a descriptor.
_BULKY_DEPTH = 2
# Depth from which tasks are short enough for results to wait for others: below it somebody may wait for each.
_WELL_STOCKED = 4
LEAST_WAIT_S = 200e-6
"""Seconds that results wait for others to leave with them: without it there are three times as many messages."""
MOST_WAIT_S = 4e-3
"""Most seconds that they wait, where every worker surely has four times as much to do. Beside short commands a
message a result took as many cores as the commands."""


class ManagerCore:
    """The state of one manager. Feed it what happens; ask it what to do."""

    def __init__(self, capacity: Capacity, prefetch: int | None, ends_at: float | None = None) -> None:
        """``ends_at``: when the block's own time is over; None where not known."""
        self.capacity = capacity
        self.ends_at = ends_at
        self.draining = False
        self.workers: dict[int, WorkerEntry] = {}
        self.estimator = PrefetchEstimator(capacity.slots, prefetch)
        self._ledger = ResourceAllocation(capacity)
        self._classes: dict[int, ResourceRequest] = {}
        # Two queues: tasks of the default class are alike and stay in order, others are a heap by priority.
        self._pending: deque[tuple[int, Record]] = deque()
        self._special: list[tuple[int, int, TaskEntry]] = []
        self._order = 0
        self._idle: dict[int, WorkerEntry] = {}
        self._part: dict[int, WorkerEntry] = {}  # default-class workers whose pipe has room
        self._deep: dict[int, WorkerEntry] = {}  # workers with tasks in their pipe
        self._killable: dict[int, float] = {}  # rank -> when its task's walltime and grace are over
        self._untold: dict[int, float] = {}  # rank -> when its task is to be told that the block ends
        self._end_is_near = False
        self._recall = 0
        self._revoked: set[int] = set()  # ranks of workers whose pipe is to be searched
        self._claimed: dict[int, WorkerEntry] = {}
        self._placed: dict[int, ResourceRequest] = {}  # what tasks of ranks take here that are about to come
        self.parts: dict[int, tuple[ResourceRequest, tuple[str, ...]]] = {}
        """What is kept for tasks of ranks that run at other managers: what each takes, and its devices."""
        self.effects = CoreEffects()
        """What is to be done besides handing out; to be taken by ``take_effects``."""

    # -- classes and tasks coming in

    def add_class(self, class_id: int, demand: ResourceRequest) -> None:
        """Learn what a class takes."""
        self._classes[class_id] = demand

    def knows(self, class_id: int) -> bool:
        """Return whether tasks of a class can be taken."""
        return class_id == DEFAULT_CLASS or class_id in self._classes

    def accept(self, class_id: int, tasks: Iterable[tuple[int, Record]]) -> None:
        """Take tasks; while draining they go back at once."""
        if self.draining:
            self.effects.returned.extend((class_id, key, record) for key, record in tasks)
        elif class_id == DEFAULT_CLASS:
            self._pending.extend(tasks)
        else:
            demand, placed = self._classes[class_id], self._placed
            for key, record in tasks:
                mine = placed.pop(key, demand) if placed else demand
                self._queue(TaskEntry(key, class_id, record, mine), again=False)

    # -- tasks of ranks

    def place(self, key: int, demand: ResourceRequest) -> None:
        """Learn what the ranks here of a task take that is about to come."""
        self._placed[key] = demand

    def reserve(self, key: int, demand: ResourceRequest) -> tuple[str, ...]:
        """Keep room for a task that runs at another manager; return the devices that its ranks here may use."""
        kept = self.parts.get(key)
        if kept is None:
            # The interchange has counted it as free; should something still run there, that ends first.
            kept = self.parts[key] = demand, self._ledger.take_what_there_is(demand)
        return kept[1]

    def release(self, key: int) -> bool:
        """Keep nothing any more for a task that runs at another manager; False if nothing was kept."""
        kept = self.parts.pop(key, None)
        if kept is not None:
            self._ledger.give_back(*kept)
        return kept is not None

    def _queue(self, task: TaskEntry, again: bool) -> None:
        """Queue by priority, then by arrival; what comes back from a worker comes before its equals."""
        self._order += 1
        heappush(self._special, (-task.demand.priority, -self._order if again else self._order, task))

    # -- workers

    def worker_up(self, rank: int, pid: int, depth: int, now: float) -> None:
        """A worker is there and ready."""
        worker = WorkerEntry(rank, pid, depth, since=now)
        self.workers[rank] = worker
        self._idle[rank] = worker

    def worker_down(self, rank: int, unstarted: Sequence[tuple[int, Record]]) -> WorkerLoss:
        """A worker is dead, its results are read, and ``unstarted`` was read back from its pipe.

        Returns what was running in it; what was not goes to other workers.
        """
        worker = self.workers.pop(rank, None)
        if worker is None:
            return WorkerLoss()
        self._took(worker, unstarted)
        walltime_s = worker.task.demand.walltime_s if worker.task is not None else None
        self._release(worker)
        running = tuple(worker.held)
        termination = (
            worker.termination[1] if worker.termination is not None and worker.termination[0] in running else ""
        )
        for index in (self._idle, self._part, self._deep, self._killable, self._untold, self._claimed):
            index.pop(rank, None)
        self._revoked.discard(rank)
        return WorkerLoss(running, termination, walltime_s)

    def claim(self, claim: WorkerLease, now: float) -> None:
        """Leave a worker to the script, or take it back; learn which tasks the script has given it."""
        worker = self.workers.get(claim.rank)
        # A rank is used again by the worker's replacement, which the claim does not mean.
        if worker is None or worker.pid != claim.pid:
            return  # it is dead, which the script is being told
        claimed_anew = claim.claimed and not worker.claimed
        if not claimed_anew:  # such a claim does not name the first task
            worker.moved.intersection_update(claim.keys)
        lent = tuple(key for key in claim.keys if key not in worker.moved)
        # Keys that the claim no longer names have ended: their results went to the script directly.
        for key in worker.lent:
            if key not in lent:
                worker.held.pop(key, None)
        if lent and not worker.held:
            worker.since = now - claim.age_s
        if claimed_anew and worker.held.keys() - lent:
            self._revoked.add(worker.rank)  # claimed before word came that it was given something: read that back
        worker.held.update(dict.fromkeys(lent))
        worker.lent, worker.claimed = lent, claim.claimed
        if claim.claimed:
            self._claimed[worker.rank] = worker
        else:
            self._claimed.pop(worker.rank, None)
        self._index(worker)

    def disown(self) -> None:
        """Replace the workers that the script may have given tasks: it is out of reach, so what they run is unknown."""
        for worker in [*self.workers.values()]:
            if worker.claimed or worker.lent:
                self._termination(worker, -1, "disowned")
                self._claimed.pop(worker.rank, None)

    def finished(self, rank: int, keys: Sequence[int], busy_s: float, now: float) -> None:
        """A worker reported results of these keys, which took ``busy_s`` together."""
        worker = self.workers.get(rank)
        if worker is None:
            return
        held = worker.held
        for key in keys:
            held.pop(key, None)
        worker.since = now
        if worker.task is not None:
            self._release(worker)
        # Only tasks of the default class teach the estimate: others are not prefetched.
        elif self.estimator.learn(len(keys), busy_s):
            self._repace()
        self._index(worker)

    def _release(self, worker: WorkerEntry) -> None:
        """Give back what a worker's work had booked, once it holds nothing."""
        if worker.task is not None:
            self._ledger.give_back(worker.task.demand, worker.devices)
            worker.task, worker.devices = None, ()
            self._killable.pop(worker.rank, None)
            self._untold.pop(worker.rank, None)

    def _index(self, worker: WorkerEntry) -> None:
        """Put a worker where its load belongs."""
        rank, load = worker.rank, len(worker.held)
        if load:
            self._idle.pop(rank, None)
        elif worker.termination is None and not worker.claimed:
            self._idle[rank] = worker
        else:
            self._idle.pop(rank, None)
        # The first key may have started; a pipe is worth reading back only where there are more.
        if load > 1:
            self._deep[rank] = worker
        else:
            self._deep.pop(rank, None)
        if (
            load
            and worker.task is None
            and worker.termination is None
            and load < min(self.estimator.depth, worker.depth)
        ):
            self._part[rank] = worker
        else:
            self._part.pop(rank, None)

    def _repace(self) -> None:
        for worker in self.workers.values():
            self._index(worker)

    # -- handing out

    def assign(self, now: float) -> list[Assignment]:
        """Return what to write into which pipe now; it counts as written."""
        out: list[Assignment] = []
        if self._special:
            self._assign_special(out, now)
        if self._pending and not self._blocked():
            self._assign_idle(out, now)
            if self._pending and self._part and not self._special:
                self._assign_deep(out)
        return out

    def _blocked(self) -> bool:
        """Whether a task of another class waits for room with at least the default priority."""
        # Then no default task starts: else one that needs several slots would never find them free together.
        return bool(self._special) and -self._special[0][0] >= 0

    def _assign_special(self, out: list[Assignment], now: float) -> None:
        while self._special and self._idle:
            task = self._special[0][2]
            # It goes back, as the block ends before it could: another block may have the time.
            if self.ends_at is not None and now + task.demand.need_s > self.ends_at and task.demand.need_s:
                heappop(self._special)
                self.effects.returned.append((task.class_id, task.key, task.record))
                continue
            # Only the first is tried: a smaller task behind it must not take the room it waits for.
            if (task.demand.priority < 0 and self._pending) or not self._fits(task.demand):
                return
            heappop(self._special)
            _, worker = self._idle.popitem()
            worker.task, worker.devices = task, self._ledger.take(task.demand)
            worker.held[task.key] = None
            worker.since = now
            if task.demand.walltime_s is not None:
                self._killable[worker.rank] = now + task.demand.walltime_s + WALLTIME_GRACE_S
            if task.demand.warn_s is not None:
                self._untold[worker.rank] = self._when_to_tell(task.demand.warn_s, now)
            out.append(Assignment(worker.rank, task.key, task.record, task.class_id, worker.devices))

    def _when_to_tell(self, warn_s: float, now: float) -> float:
        if self._end_is_near:
            return now
        return math.inf if self.ends_at is None else self.ends_at - warn_s

    def _fits(self, demand: ResourceRequest) -> bool:
        # Tasks of the default class are not in the ledger: what workers hold is the account of them.
        busy = sum(1 for worker in self.workers.values() if worker.held and worker.task is None)
        if busy + self._ledger.slots + demand.slots > self.capacity.slots:
            return False
        memory, each = self.capacity.memory_mb, self.capacity.mem_per_worker_mb
        if memory and busy * each + self._ledger.memory_mb + demand.memory_mb > memory:
            return False
        return self._ledger.fits(demand)

    def _free_slots(self) -> int:
        """Slots that neither special nor default tasks take; only asked while special tasks hold some."""
        busy = sum(1 for worker in self.workers.values() if worker.held and worker.task is None)
        return self.capacity.slots - self._ledger.slots - busy

    def _assign_idle(self, out: list[Assignment], now: float) -> None:
        # The count is made only while other classes hold slots: it looks at every worker.
        room = self._free_slots() if self._ledger.slots else len(self._idle)
        pending, idle = self._pending, self._idle
        while pending and idle and room > 0:
            key, record = pending.popleft()
            rank, worker = idle.popitem()
            worker.held[key] = None
            worker.since = now
            room -= 1
            if min(self.estimator.depth, worker.depth) > 1:
                self._part[rank] = worker
            out.append(Assignment(rank, key, record))

    def _assign_deep(self, out: list[Assignment]) -> None:
        """Fill pipes evenly: a share each, so that a short queue is not all behind one worker."""
        pending = self._pending
        share = max(1, -(-len(pending) // len(self._part)))
        for rank, worker in list(self._part.items()):
            held, limit = worker.held, min(self.estimator.depth, worker.depth)
            for _ in range(min(share, limit - len(held))):
                # ``share`` rounds up, so the last workers may find nothing left.
                if not pending or (len(pending[0][1]) > BULKY and len(held) >= _BULKY_DEPTH):
                    break
                key, record = pending.popleft()
                held[key] = None
                out.append(Assignment(rank, key, record))
            self._index(worker)

    def not_written(self, assignment: Assignment) -> None:
        """A packet did not go into the pipe after all: it waits again, as the first."""
        worker = self.workers.get(assignment.rank)
        if worker is not None:
            self._took(worker, [(assignment.key, assignment.record)])
            self._index(worker)

    # -- reading back

    def readbacks(self, now: float) -> list[tuple[int, int]]:
        """Return (rank, packets) to read back from pipes now; report each by ``took_back``."""
        # Cancelled keys come first: until the pipe is searched nobody knows whether they have started.
        if self._revoked:
            return [(rank, self.workers[rank].depth) for rank in self._revoked]
        if not self._deep:
            self._recall = 0
            return []
        # All that has not started makes room, for the more urgent task or for the end.
        if self._blocked() or self.draining:
            return [(rank, len(worker.held)) for rank, worker in self._deep.items()]
        if self._recall:
            return self._to_recall()
        return self._to_steal(now)

    def _to_recall(self) -> list[tuple[int, int]]:
        wanted, found = self._recall, []
        for rank, worker in sorted(self._deep.items(), key=lambda item: -len(item[1].held)):
            if wanted <= 0:
                break
            # All but the one that may run; the fullest pipes are emptied first.
            count = min(wanted, len(worker.held) - 1)
            found.append((rank, count))
            wanted -= count
        return found

    def _to_steal(self, now: float) -> list[tuple[int, int]]:
        """Half of the pipe of the fullest worker that has been silent, if another has nothing to do."""
        if not self._idle or self._pending:
            return []
        late = [worker for worker in self._deep.values() if now - worker.since >= STEAL_AFTER_S]
        if not late or (self._ledger.slots and self._free_slots() <= 0):
            return []
        victim = max(late, key=lambda worker: len(worker.held))
        # Counts as a sign of life, so that the same pipe is not read again in the next turn.
        victim.since = now
        return [(victim.rank, max(1, (len(victim.held) - 1) // 2))]

    def took_back(self, rank: int, tasks: Sequence[tuple[int, Record]]) -> None:
        """These were read back from a worker's pipe, all that were asked for or all there were."""
        worker = self.workers.get(rank)
        if worker is not None:
            self._took(worker, tasks)
            self._settle_fences(worker)
            self._index(worker)
        self._settle_recall(last=not self._deep)

    def _took(self, worker: WorkerEntry, tasks: Sequence[tuple[int, Record]]) -> None:
        """Take keys off a worker, fenced ones for good; the others wait again, before those that came later."""
        # A key not held here was written by the script, which has not reported it yet: it is the manager's from now on.
        taken = tuple(key for key, _ in tasks if key in worker.lent or key not in worker.held)
        if taken:
            worker.lent = tuple(key for key in worker.lent if key not in taken)
            worker.moved.update(taken)
            self.effects.taken.append((worker.rank, worker.pid, taken))
        # Reversed, since each is put in front of the queue: their order stays as it was.
        for key, record in reversed(tasks):
            worker.held.pop(key, None)
            if worker.fenced.pop(key, None) is not None:
                self.effects.cancelled.append(key)
            elif worker.task is not None and worker.task.key == key:
                self._requeue(worker.task)
            elif self.draining:
                self.effects.returned.append((DEFAULT_CLASS, key, record))
            else:
                self._pending.appendleft((key, record))
        if worker.task is not None and not worker.held:
            self._release(worker)

    def _requeue(self, task: TaskEntry) -> None:
        if self.draining:
            self.effects.returned.append((task.class_id, task.key, task.record))
        else:
            self._queue(task, again=True)

    # -- orders of the interchange

    def cancel(self, keys: Iterable[int], kill: bool) -> None:
        """Cancel what has not started, and with ``kill`` also what has."""
        wanted = set(keys)
        self._cancel_waiting(wanted)
        for worker in self.workers.values():
            for key in wanted.intersection(worker.held):
                worker.fenced[key] = kill
                self._revoked.add(worker.rank)

    def _cancel_waiting(self, wanted: set[int]) -> None:
        for key, _ in self._pending:
            if key in wanted:
                self.effects.cancelled.append(key)
        for _, _, task in self._special:
            if task.key in wanted:
                self.effects.cancelled.append(task.key)
        # Rebuilding the queues costs as much as they are long: only where something was found.
        if self.effects.cancelled:
            self._pending = deque(item for item in self._pending if item[0] not in wanted)
            self._special = sorted(entry for entry in self._special if entry[2].key not in wanted)

    def _settle_fences(self, worker: WorkerEntry) -> None:
        """What is fenced and still held after the pipe was read back has started."""
        for key, kill in worker.fenced.items():
            if key not in worker.held:
                continue
            if kill:
                self._termination(worker, key, "cancel")
            else:
                self.effects.begun.append((key, worker.rank, worker.since))
        worker.fenced.clear()
        self._revoked.discard(worker.rank)

    def _termination(self, worker: WorkerEntry, key: int, why: str) -> None:
        if worker.termination is None:
            worker.termination = (key, why)
            # Once only: a second reason must not replace the one under which its task is reported.
            self.effects.kill.append(worker.rank)
            for index in (self._idle, self._part):
                index.pop(worker.rank, None)

    def replace(self, rank: int) -> None:
        """A worker does not go on: it is to be killed, and what it runs is lost by that."""
        worker = self.workers.get(rank)
        if worker is not None:
            self._termination(worker, next(iter(worker.held), -1), "stopped")

    def age_of(self, rank: int, now: float) -> float | None:
        """Return how long ago the task that a worker runs has begun; None where it runs none."""
        worker = self.workers.get(rank)
        if worker is None or not (worker.held or worker.claimed):
            return None
        # The age bounds which processes count as started by the task, when they are ended with it.
        return max(0.0, now - worker.since) if worker.held else UNTOLD_S

    def recall(self, count: int) -> None:
        """Give back up to ``count`` tasks of the default class that have not started, the newest first."""
        while count and self._pending:
            # The newest go back: the oldest are next in turn here, and would lose their place elsewhere.
            key, record = self._pending.pop()
            self.effects.returned.append((DEFAULT_CLASS, key, record))
            count -= 1
        self._recall = count if self._deep else 0

    def _settle_recall(self, last: bool) -> None:
        while self._recall and self._pending:
            key, record = self._pending.pop()
            self.effects.returned.append((DEFAULT_CLASS, key, record))
            self._recall -= 1
        if last:
            self._recall = 0

    def recalling(self) -> bool:
        """Whether a recall is not answered in full yet."""
        return bool(self._recall)

    def drain(self) -> None:
        """Take nothing more and give back all that has not started."""
        self.draining = True
        self.effects.returned.extend((DEFAULT_CLASS, key, record) for key, record in self._pending)
        # A heap's list is not in order; the interchange keeps the order in which tasks come back.
        self.effects.returned.extend((task.class_id, task.key, task.record) for _, _, task in sorted(self._special))
        self._pending.clear()
        self._special.clear()

    def resume(self) -> None:
        """Take tasks again, after a HOLD was released."""
        self.draining = False

    # -- time

    def overdue(self, now: float) -> None:
        """Kill the workers whose task is beyond its walltime and grace."""
        for rank in [rank for rank, when in self._killable.items() if when <= now]:
            del self._killable[rank]
            worker = self.workers[rank]
            if worker.task is not None:
                self._termination(worker, worker.task.key, "walltime")

    def to_tell(self, now: float) -> list[tuple[int, int]]:
        """Return (rank, pid) of workers whose tasks are to be told now that their block ends; again, until ``told``."""
        found = [self.workers[rank] for rank, when in self._untold.items() if when <= now]
        for worker in found:
            self._untold[worker.rank] = now + TELL_AGAIN_S
        return [(worker.rank, worker.pid) for worker in found]

    def told(self, rank: int, key: int) -> None:
        """A worker answered that the task of this key was told."""
        worker = self.workers.get(rank)
        if worker is not None and worker.task is not None and worker.task.key == key:
            self._untold.pop(rank, None)

    def end_is_near(self, now: float) -> float:
        """The block ends before its time: tell all tasks that asked for it, those that are told already excepted.

        Return how long the longest of them may take to save its work, in seconds; 0 where none asked.
        """
        self._end_is_near = True
        for rank, when in self._untold.items():
            self._untold[rank] = min(when, now)
        asked = [worker.task.demand.warn_s for worker in self.workers.values() if worker.task is not None]
        return max((warn_s for warn_s in asked if warn_s is not None), default=0.0)

    def deadline(self, now: float) -> float | None:
        """Return when to look again although nothing happens, or None."""
        steal = bool(self._deep and self._idle and not self._pending)
        if not steal and not self._killable and not self._untold:
            return None
        times = [*self._killable.values(), *self._untold.values()]
        if steal:
            times.append(min(worker.since for worker in self._deep.values()) + STEAL_AFTER_S)
        return max(now, min(times))

    def starts(self, now: float, after_s: float) -> list[tuple[int, int, float]]:
        """Return (key, rank, since) of tasks that run for longer than ``after_s`` and were not reported before."""
        found = []
        for worker in self.workers.values():
            if worker.held and now - worker.since >= after_s:
                key = next(iter(worker.held))
                if key != worker.reported:
                    worker.reported = key
                    found.append((key, worker.rank, worker.since))
        return found

    # -- what there is

    def take_effects(self) -> CoreEffects:
        """Return what is to be done, once."""
        effects, self.effects = self.effects, CoreEffects()
        return effects

    def take_taken(self) -> list[Taken]:
        """Return the effects that must be known before a death is, once."""
        taken, self.effects.taken = self.effects.taken, []
        return taken

    def held(self) -> list[int]:
        """Return the keys of all tasks that are here."""
        keys = [key for key, _ in self._pending]
        keys += [task.key for _, _, task in self._special]
        for worker in self.workers.values():
            keys += worker.held
        return keys

    def running_for(self, now: float) -> list[tuple[int, float]]:
        """Return (key, seconds) of all that workers hold; what comes after the first has not run yet."""
        return [
            (key, now - worker.since if place == 0 else 0.0)
            for worker in self.workers.values()
            for place, key in enumerate(worker.held)
        ]

    def running(self) -> Mapping[int, int]:
        """Return pid -> key of what runs, as far as known."""
        return {worker.pid: next(iter(worker.held)) for worker in self.workers.values() if worker.held}

    @property
    def busy(self) -> bool:
        """Whether some worker has something to do, as far as known here."""
        # Claimed workers are in no index of idle ones, as only the script may give them tasks.
        idle = len(self._idle)
        if self._claimed:
            idle += sum(not worker.held for worker in self._claimed.values())
        return idle < len(self.workers)

    @property
    def claimed(self) -> list[WorkerEntry]:
        """Workers that may have tasks which are not known here."""
        return [*self._claimed.values()]

    @property
    def quiet(self) -> bool:
        """Whether nothing is here, or given to workers by the script."""
        return not self._pending and not self._special and not self._claimed and not self.busy

    def results_wait_s(self) -> float:
        """Return how long after a message of results the next one may leave, where more results will come.

        A message a result costs the processes on its way as much as the start of a command. So results wait for a part
        of the time for which every worker surely has something to do, as far as is known how long tasks take.
        """
        if self.estimator.depth < _WELL_STOCKED or not self.workers:
            return LEAST_WAIT_S
        # The worker with the least to do counts: it must not run dry while results wait.
        stock = self.estimator.estimate * (min(len(worker.held) for worker in self.workers.values()) - 1)
        return min(MOST_WAIT_S, max(LEAST_WAIT_S, stock / 4))

    @property
    def waiting(self) -> int:
        """Tasks that no worker has been given."""
        return len(self._pending) + len(self._special)
