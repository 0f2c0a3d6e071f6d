"""Which worker gets which task: the manager's decisions, without any I/O. Times are seconds of one monotonic clock.

Tasks of the default class are prefetched into the workers' pipes, as many as about 20 ms of estimated work; all others
start only when their demand fits and a worker is idle. What lies in a pipe has not started, and can be read back.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from heapq import heappop, heappush

from flow_executors.manager.demand import Capacity, Demand, Ledger
from flow_executors.manager.pace import Pace
from flow_executors.manager.records import Effects, Fallen, Handout, Record, Taken, Task, Worker
from flow_executors.wire.lanes import Claim
from flow_executors.wire.specs import DEFAULT_CLASS

STEAL_AFTER_S = 0.001
UNTOLD_S = 0.5
"""Tasks that the script gave a worker are known here after about half of that."""
WALLTIME_GRACE_S = 5.0
BULKY = 3072
"""Records above this many bytes may need a file each: few of them are handed out in advance."""
_BULKY_DEPTH = 2
_WELL_STOCKED = 4
LEAST_WAIT_S = 200e-6
MOST_WAIT_S = 4e-3
"""Of results for others, to leave with them."""
_MAX_FALSE_STARTS = 3


class ManagerCore:
    """The state of one manager. Feed it what happens; ask it what to do."""

    def __init__(self, capacity: Capacity, prefetch: int | None, ends_at: float | None = None) -> None:
        """``ends_at``: when the block's own time is over; None where not known."""
        self.capacity = capacity
        self.ends_at = ends_at
        self.draining = False
        self.workers: dict[int, Worker] = {}
        self.pace = Pace(capacity.slots, prefetch)
        self._ledger = Ledger(capacity)
        self._classes: dict[int, Demand] = {}
        self._pending: deque[tuple[int, Record]] = deque()
        self._special: list[tuple[int, int, Task]] = []
        self._order = 0
        self._idle: dict[int, Worker] = {}
        self._part: dict[int, Worker] = {}  # default-class workers whose pipe has room
        self._deep: dict[int, Worker] = {}  # workers with tasks in their pipe
        self._killable: dict[int, float] = {}  # rank -> when its task's walltime and grace are over
        self._recall = 0
        self._fenced: set[int] = set()  # ranks of workers whose pipe is to be searched
        self._claimed: dict[int, Worker] = {}
        self.effects = Effects()
        """What is to be done besides handing out; to be taken by ``take_effects``."""

    # -- classes and tasks coming in

    def add_class(self, class_id: int, demand: Demand) -> None:
        """Learn what a class takes."""
        self._classes[class_id] = demand

    def knows(self, class_id: int) -> bool:
        """Say whether tasks of a class can be taken."""
        return class_id == DEFAULT_CLASS or class_id in self._classes

    def accept(self, class_id: int, tasks: Iterable[tuple[int, Record]]) -> None:
        """Take tasks; while draining they go back at once."""
        if self.draining:
            self.effects.returned.extend((class_id, key, record) for key, record in tasks)
        elif class_id == DEFAULT_CLASS:
            self._pending.extend(tasks)
        else:
            demand = self._classes[class_id]
            for key, record in tasks:
                self._queue(Task(key, class_id, record, demand), again=False)

    def _queue(self, task: Task, again: bool) -> None:
        """Queue by priority, then by arrival; what comes back from a worker comes before its equals."""
        self._order += 1
        heappush(self._special, (-task.demand.priority, -self._order if again else self._order, task))

    # -- workers

    def worker_up(self, rank: int, pid: int, depth: int, now: float) -> None:
        """A worker is there and ready."""
        worker = Worker(rank, pid, depth, since=now)
        self.workers[rank] = worker
        self._idle[rank] = worker

    def worker_down(self, rank: int, unstarted: Sequence[tuple[int, Record]]) -> Fallen:
        """A worker is dead, its results are read, and ``unstarted`` was read back from its pipe.

        Returns what was running in it; what was not goes to other workers.
        """
        worker = self.workers.pop(rank, None)
        if worker is None:
            return Fallen()
        self._took(worker, unstarted)
        walltime_s = worker.task.demand.walltime_s if worker.task is not None else None
        self._release(worker)
        running = tuple(worker.held)
        doom = worker.doom[1] if worker.doom is not None and worker.doom[0] in running else ""
        for index in (self._idle, self._part, self._deep, self._killable, self._claimed):
            index.pop(rank, None)
        self._fenced.discard(rank)
        return Fallen(running, doom, walltime_s)

    def claim(self, claim: Claim, now: float) -> None:
        """Leave a worker to the script, or take it back; learn which tasks the script has given it."""
        worker = self.workers.get(claim.rank)
        if worker is None or worker.pid != claim.pid:
            return  # it is dead, which the script is being told
        claimed_anew = claim.claimed and not worker.claimed
        if not claimed_anew:  # such a claim does not name the first task
            worker.moved.intersection_update(claim.keys)
        lent = tuple(key for key in claim.keys if key not in worker.moved)
        for key in worker.lent:
            if key not in lent:
                worker.held.pop(key, None)
        if lent and not worker.held:
            worker.since = now - claim.age_s
        if claimed_anew and worker.held.keys() - lent:
            self._fenced.add(worker.rank)  # claimed before word came that it was given something: read that back
        worker.held.update(dict.fromkeys(lent))
        worker.lent, worker.claimed = lent, claim.claimed
        if claim.claimed:
            self._claimed[worker.rank] = worker
        else:
            self._claimed.pop(worker.rank, None)
        self._index(worker)

    def disown(self) -> None:
        """The script is out of reach: what it may have given to workers is unknown, so new ones take their place."""
        for worker in [*self.workers.values()]:
            if worker.claimed or worker.lent:
                self._doom(worker, -1, "disowned")
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
        elif self.pace.learn(len(keys), busy_s):
            self._repace()
        self._index(worker)

    def _release(self, worker: Worker) -> None:
        """Give back what a worker's work had booked, once it holds nothing."""
        if worker.task is not None:
            self._ledger.give_back(worker.task.demand, worker.devices)
            worker.task, worker.devices = None, ()
            self._killable.pop(worker.rank, None)

    def _index(self, worker: Worker) -> None:
        """Put a worker where its load belongs."""
        rank, load = worker.rank, len(worker.held)
        if load:
            self._idle.pop(rank, None)
        elif worker.doom is None and not worker.claimed:
            self._idle[rank] = worker
        else:
            self._idle.pop(rank, None)
        if load > 1:
            self._deep[rank] = worker
        else:
            self._deep.pop(rank, None)
        if load and worker.task is None and worker.doom is None and load < min(self.pace.depth, worker.depth):
            self._part[rank] = worker
        else:
            self._part.pop(rank, None)

    def _repace(self) -> None:
        for worker in self.workers.values():
            self._index(worker)

    # -- handing out

    def assign(self, now: float) -> list[Handout]:
        """Return what to write into which pipe now; it counts as written."""
        out: list[Handout] = []
        if self._special:
            self._assign_special(out, now)
        if self._pending and not self._blocked():
            self._assign_idle(out, now)
            if self._pending and self._part and not self._special:
                self._assign_deep(out)
        return out

    def _blocked(self) -> bool:
        """Whether a task of a class of its own waits for room, and comes before those of the default class."""
        return bool(self._special) and -self._special[0][0] >= 0

    def _assign_special(self, out: list[Handout], now: float) -> None:
        while self._special and self._idle:
            task = self._special[0][2]
            if self.ends_at is not None and now + task.demand.need_s > self.ends_at and task.demand.need_s:
                heappop(self._special)
                self.effects.returned.append((task.class_id, task.key, task.record))
                continue
            if (task.demand.priority < 0 and self._pending) or not self._fits(task.demand):
                return
            heappop(self._special)
            _, worker = self._idle.popitem()
            worker.task, worker.devices = task, self._ledger.take(task.demand)
            worker.held[task.key] = None
            worker.since = now
            if task.demand.walltime_s is not None:
                self._killable[worker.rank] = now + task.demand.walltime_s + WALLTIME_GRACE_S
            out.append(Handout(worker.rank, task.key, task.record, task.class_id, worker.devices))

    def _fits(self, demand: Demand) -> bool:
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

    def _assign_idle(self, out: list[Handout], now: float) -> None:
        room = self._free_slots() if self._ledger.slots else len(self._idle)
        pending, idle = self._pending, self._idle
        while pending and idle and room > 0:
            key, record = pending.popleft()
            rank, worker = idle.popitem()
            worker.held[key] = None
            worker.since = now
            room -= 1
            if min(self.pace.depth, worker.depth) > 1:
                self._part[rank] = worker
            out.append(Handout(rank, key, record))

    def _assign_deep(self, out: list[Handout]) -> None:
        """Fill pipes evenly: a share each, so that a short queue is not all behind one worker."""
        pending = self._pending
        share = max(1, -(-len(pending) // len(self._part)))
        for rank, worker in list(self._part.items()):
            held, limit = worker.held, min(self.pace.depth, worker.depth)
            for _ in range(min(share, limit - len(held))):
                if not pending or (len(pending[0][1]) > BULKY and len(held) >= _BULKY_DEPTH):
                    break
                key, record = pending.popleft()
                held[key] = None
                out.append(Handout(rank, key, record))
            self._index(worker)

    def not_written(self, handout: Handout) -> None:
        """A packet did not go into the pipe after all: it waits again, as the first."""
        worker = self.workers.get(handout.rank)
        if worker is not None:
            self._took(worker, [(handout.key, handout.record)])
            self._index(worker)

    # -- reading back

    def readbacks(self, now: float) -> list[tuple[int, int]]:
        """Return (rank, packets) to read back from pipes now; report each by ``took_back``."""
        if self._fenced:
            return [(rank, self.workers[rank].depth) for rank in self._fenced]
        if not self._deep:
            self._recall = 0
            return []
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

    def _took(self, worker: Worker, tasks: Sequence[tuple[int, Record]]) -> None:
        """Take keys off a worker, fenced ones for good; the others wait again, before those that came later."""
        taken = tuple(key for key, _ in tasks if key in worker.lent or key not in worker.held)
        if taken:
            worker.lent = tuple(key for key in worker.lent if key not in taken)
            worker.moved.update(taken)
            self.effects.taken.append((worker.rank, worker.pid, taken))
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

    def _requeue(self, task: Task) -> None:
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
                self._fenced.add(worker.rank)

    def _cancel_waiting(self, wanted: set[int]) -> None:
        for key, _ in self._pending:
            if key in wanted:
                self.effects.cancelled.append(key)
        for _, _, task in self._special:
            if task.key in wanted:
                self.effects.cancelled.append(task.key)
        if self.effects.cancelled:
            self._pending = deque(item for item in self._pending if item[0] not in wanted)
            self._special = sorted(entry for entry in self._special if entry[2].key not in wanted)

    def _settle_fences(self, worker: Worker) -> None:
        """What is fenced and still held after the pipe was read back has started."""
        for key, kill in worker.fenced.items():
            if kill and key in worker.held:
                self._doom(worker, key, "cancel")
        worker.fenced.clear()
        self._fenced.discard(worker.rank)

    def _doom(self, worker: Worker, key: int, why: str) -> None:
        if worker.doom is None:
            worker.doom = (key, why)
            self.effects.kill.append(worker.rank)
            for index in (self._idle, self._part):
                index.pop(worker.rank, None)

    def replace(self, rank: int) -> None:
        """A worker does not go on: it is to be killed, and what it runs is lost by that."""
        worker = self.workers.get(rank)
        if worker is not None:
            self._doom(worker, next(iter(worker.held), -1), "stopped")

    def age_of(self, rank: int, now: float) -> float | None:
        """Return how long ago the task that a worker runs has begun; None where it runs none."""
        worker = self.workers.get(rank)
        if worker is None or not (worker.held or worker.claimed):
            return None
        return max(0.0, now - worker.since) if worker.held else UNTOLD_S

    def recall(self, count: int) -> None:
        """Give back up to ``count`` tasks of the default class that have not started, the newest first."""
        while count and self._pending:
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
        self.effects.returned.extend((task.class_id, task.key, task.record) for _, _, task in sorted(self._special))
        self._pending.clear()
        self._special.clear()

    def resume(self) -> None:
        """Take tasks again."""
        self.draining = False

    # -- time

    def overdue(self, now: float) -> None:
        """Doom the workers whose task is beyond its walltime and grace."""
        for rank in [rank for rank, when in self._killable.items() if when <= now]:
            del self._killable[rank]
            worker = self.workers[rank]
            if worker.task is not None:
                self._doom(worker, worker.task.key, "walltime")

    def deadline(self, now: float) -> float | None:
        """Return when to look again although nothing happens, or None."""
        steal = bool(self._deep and self._idle and not self._pending)
        if not steal and not self._killable:
            return None
        times = [*self._killable.values()]
        if steal:
            times.append(min(worker.since for worker in self._deep.values()) + STEAL_AFTER_S)
        return max(now, min(times))

    def starts(self, now: float, after_s: float) -> list[tuple[int, int, float]]:
        """Return (key, rank, since) of tasks that run for longer than ``after_s`` and were not told before."""
        found = []
        for worker in self.workers.values():
            if worker.held and now - worker.since >= after_s:
                key = next(iter(worker.held))
                if key != worker.reported:
                    worker.reported = key
                    found.append((key, worker.rank, worker.since))
        return found

    # -- what there is

    def take_effects(self) -> Effects:
        """Return what is to be done, once."""
        effects, self.effects = self.effects, Effects()
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
        idle = len(self._idle)
        if self._claimed:
            idle += sum(not worker.held for worker in self._claimed.values())
        return idle < len(self.workers)

    @property
    def claimed(self) -> list[Worker]:
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
        if self.pace.depth < _WELL_STOCKED or not self.workers:
            return LEAST_WAIT_S
        stock = self.pace.estimate * (min(len(worker.held) for worker in self.workers.values()) - 1)
        return min(MOST_WAIT_S, max(LEAST_WAIT_S, stock / 4))

    @property
    def waiting(self) -> int:
        """Tasks that no worker has been given."""
        return len(self._pending) + len(self._special)
