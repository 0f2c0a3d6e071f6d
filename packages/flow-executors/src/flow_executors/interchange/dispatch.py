"""Handing out tasks: whole batches to whoever is idle, then to whoever prefetches; other classes where they fit."""

from __future__ import annotations

from collections import OrderedDict
from itertools import islice

from flow_executors.interchange.desk import Desk
from flow_executors.interchange.packing import Packer
from flow_executors.interchange.pool import Manager
from flow_executors.wire.kinds import Buffer

_BATCH = 4096
"""Most tasks in one message."""
_RECALL_EVERY_S = 0.005
_LOOK = 8
"""Loaded managers of which the one with most work a worker is asked."""


class Dispatcher:
    """Moves tasks from the queues to managers with room."""

    __slots__ = ("_desk", "_next_recall", "_packed", "_packer")

    def __init__(self, desk: Desk, packed: bool) -> None:
        self._desk = desk
        self._next_recall = 0.0
        self._packed = packed
        self._packer = Packer(desk, packed)

    def dispatch(self, now: float) -> None:
        """Hand out what can be handed out, the most urgent first."""
        desk, packer = self._desk, self._packer
        if packer.wanted(now):
            packer.place_before(desk.waiting.default.rank, now)
            self._default()
            if packer.place_rest(now):
                self._default()
        elif desk.waiting.default.count:
            self._default()
        if desk.pool.idle and desk.pool.loaded:
            self._rebalance(now)

    def pass_on(self, digest: bytes, key: int, message: Buffer) -> bool:
        """Hand out a message of one task of the default class as it is; False if that needs more thought.

        So it goes where no task waits, and the manager whose turn it is has nothing to do and knows the function.
        """
        desk = self._desk
        pool = desk.pool
        if desk.waiting.count or not pool.idle:
            return False
        manager = self._first(pool.idle)
        if digest not in manager.known:
            return False
        manager.out.add(key)
        manager.idle_since = None
        desk.send(manager, message)
        pool.settle(manager)
        pool.rotate(manager)
        return True

    def tick(self, now: float) -> None:
        """Look again at what depends on time."""
        self.dispatch(now)

    def next_deadline(self, now: float) -> float | None:
        """Return when a rebalancing that was put off is due, or another look at tasks that fit nowhere."""
        pool, later = self._desk.pool, self._packer.look_at
        if pool.idle and pool.loaded and any(not manager.recalling for manager in pool.loaded.values()):
            rebalance = max(now + 0.001, self._next_recall)
            return rebalance if later is None else min(rebalance, later)
        return later

    def _default(self) -> None:
        queue, pool = self._desk.waiting.default, self._desk.pool
        while queue.count and pool.idle:
            manager = self._first(pool.idle)
            plenty = queue.count > pool.total_slots
            self._give(manager, manager.room if plenty else manager.free_slots)
        while queue.count and pool.prefetching:
            manager = self._first(pool.prefetching)
            share = -(-queue.count * manager.slots // max(1, pool.total_slots))
            self._give(manager, min(manager.room, max(share, 1)))

    def _first(self, index: OrderedDict[int, Manager]) -> Manager:
        """Return the next in turn, or the one that came first where blocks are to be filled one after the other."""
        return index[min(index)] if self._packed else next(iter(index.values()))

    def _give(self, manager: Manager, count: int) -> None:
        desk = self._desk
        queue = desk.waiting.default
        taken = queue.take(min(count, _BATCH))
        manager.out.update(taken.keys)
        desk.give(manager, queue.class_id, taken)
        desk.pool.rotate(manager)

    def _rebalance(self, now: float) -> None:
        """Some manager is idle while another has more than it can run: ask that one for half of the rest."""
        pool = self._desk.pool
        if now < self._next_recall:
            return
        self._next_recall = now + _RECALL_EVERY_S
        loaded = [manager for manager in islice(pool.loaded.values(), _LOOK) if not manager.recalling]
        if loaded:
            manager = max(loaded, key=lambda one: one.backlog / max(1, one.slots))
            self._desk.recall(manager, -(-manager.backlog // 2))
        for number in list(islice(pool.loaded, _LOOK)):
            pool.loaded.move_to_end(number)
