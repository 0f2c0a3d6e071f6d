"""Handing out tasks: whole batches to whoever is idle, then to whoever prefetches; other classes where they fit."""

from __future__ import annotations

from collections import OrderedDict

from flow_core.interfaces.outcome import Verdict
from flow_executors.interchange.classes import ClassQueue, Slice
from flow_executors.interchange.desk import Desk
from flow_executors.interchange.pool import Manager
from flow_executors.manager.demand import Demand, misfit
from flow_executors.wire.frames import ALL, DEFAULT_CLASS, pack_recall, pack_tasks

_BATCH = 4096
"""Most tasks in one message."""
_RECALL_EVERY_S = 0.02
_ENDING_S = 1.0


class Dispatcher:
    """Moves tasks from the queues to managers with room."""

    __slots__ = ("_desk", "_next_recall", "_packed")

    def __init__(self, desk: Desk, packed: bool) -> None:
        self._desk = desk
        self._next_recall = 0.0
        self._packed = packed

    def dispatch(self, now: float) -> None:
        """Hand out what can be handed out."""
        desk = self._desk
        for queue in desk.waiting.by_urgency(now):
            if queue.class_id == DEFAULT_CLASS:
                self._default(queue, now)
            else:
                self._special(queue, now)
        if desk.pool.idle and desk.pool.loaded:
            self._rebalance(now)

    def tick(self, now: float) -> None:
        """Look again at what depends on time."""
        self.dispatch(now)

    def next_deadline(self, now: float) -> float | None:
        """Return when a rebalancing that was put off is due."""
        pool = self._desk.pool
        if pool.idle and pool.loaded and any(not manager.recalling for manager in pool.loaded.values()):
            return max(now + 0.001, self._next_recall)
        return None

    # -- the default class

    def _default(self, queue: ClassQueue, now: float) -> None:
        pool = self._desk.pool
        while queue.count and pool.idle:
            manager = self._first(pool.idle)
            plenty = queue.count > pool.total_slots
            self._give(manager, queue, manager.room if plenty else manager.free_slots, now)
        while queue.count and pool.prefetching:
            manager = self._first(pool.prefetching)
            share = -(-queue.count // len(pool.prefetching))
            self._give(manager, queue, min(manager.room, max(share, 1)), now)

    def _first(self, index: OrderedDict[int, Manager]) -> Manager:
        """Return the next in turn, or the one that came first where blocks are to be filled one after the other."""
        return index[min(index)] if self._packed else next(iter(index.values()))

    def _give(self, manager: Manager, queue: ClassQueue, count: int, now: float) -> None:
        taken = queue.take(min(count, _BATCH))
        manager.out.update(taken.keys)
        self._send(manager, queue.class_id, taken)
        manager.idle_since = None
        self._desk.pool.settle(manager)
        self._desk.pool.rotate(manager)

    def _send(self, manager: Manager, class_id: int, taken: Slice) -> None:
        desk = self._desk
        desk.send_spec(manager, class_id)
        lacking = taken.digests - manager.known
        if lacking:
            self._send_blobs(manager, lacking)
        body = taken.bodies[0] if len(taken.bodies) == 1 else b"".join(taken.bodies)
        desk.send(manager, pack_tasks(class_id, sorted(taken.digests), taken.keys, taken.lengths, body))

    def _send_blobs(self, manager: Manager, digests: set[bytes]) -> None:
        desk = self._desk
        manager.learn(digests)
        desk.ask_for([digest for digest in digests if not desk.send_blob(manager.peer, digest)], manager.peer)

    # -- other classes

    def _special(self, queue: ClassQueue, now: float) -> None:
        desk = self._desk
        if not desk.pool.by_number:
            return
        managers = list(desk.pool.by_number.values())
        reasons = {misfit(queue.spec.resources, manager.capacity) for manager in managers}
        if "" not in reasons:
            self._refuse(queue, sorted(reasons)[0])
            return
        for manager in managers:
            demand = Demand.of(queue.spec, manager.capacity)
            taken = Slice([], [], [], set())
            while queue.count and manager.fits_now(demand) and self._lasts(queue, manager):
                one = queue.take(1)
                manager.take_special(one.keys[0], demand)
                taken.keys += one.keys
                taken.lengths += one.lengths
                taken.bodies += one.bodies
                taken.digests |= one.digests
            if taken.keys:
                self._send(manager, queue.class_id, taken)
                manager.idle_since = None
                desk.pool.settle(manager)
            if not queue.count:
                break
        self._reserve(queue, managers)

    def _refuse(self, queue: ClassQueue, reason: str) -> None:
        keys = queue.clear()
        self._release(queue.class_id)
        self._desk.report(keys, Verdict.REFUSED, f"it fits on no node: {reason}".encode())

    def _lasts(self, queue: ClassQueue, manager: Manager) -> bool:
        """Whether the block of a manager lives long enough for a task of the class."""
        need, ends = queue.spec.running_time_min_s, manager.offer.ends_at_ns
        return not (need and ends) or ends - self._desk.time_ns() >= (need + _ENDING_S) * 1e9

    def _reserve(self, queue: ClassQueue, managers: list[Manager]) -> None:
        """Keep one manager free of default tasks for a class that waits, lest it starve; give it back afterwards."""
        class_id = queue.class_id
        reserved = [manager for manager in managers if manager.reserved_for == class_id]
        if not queue.count:
            self._release(class_id)
            return
        if reserved or queue.spec.priority < 0:
            return
        for manager in managers:
            suits = not misfit(queue.spec.resources, manager.capacity) and self._lasts(queue, manager)
            if suits and manager.reserved_for is None and not manager.closed:
                manager.reserved_for = class_id
                if manager.backlog:
                    self._recall(manager, ALL)
                self._desk.pool.settle(manager)
                return

    def _release(self, class_id: int) -> None:
        for manager in self._desk.pool.by_number.values():
            if manager.reserved_for == class_id:
                manager.reserved_for = None
                self._desk.pool.settle(manager)

    # -- rebalancing

    def _rebalance(self, now: float) -> None:
        """Some manager is idle while another has more than it can run: ask that one for half of the rest."""
        pool = self._desk.pool
        if now < self._next_recall:
            return
        self._next_recall = now + _RECALL_EVERY_S
        for manager in list(pool.loaded.values()):
            if not manager.recalling and manager.cut_off_at is None:
                self._recall(manager, -(-manager.backlog // 2))
                pool.loaded.move_to_end(manager.number)
                return

    def _recall(self, manager: Manager, count: int) -> None:
        if not manager.recalling:
            manager.recalling = True
            self._desk.send(manager, pack_recall(count))
