"""Packing tasks of classes of their own: the most urgent that fits goes where it fits; what fits nowhere is refused.

Looking costs no more for thousands of classes or managers than for a few: shapes of tasks and profiles of managers
stand for them, a look ends after so many failures and is taken up again a moment later, and nobody looks before some
manager has more room than before.
"""

from __future__ import annotations

from itertools import islice

from flow_core.interfaces.call import Resources
from flow_core.interfaces.outcome import Verdict
from flow_executors.interchange.classes import AGEING_S, Rank, Shape, Slice
from flow_executors.interchange.desk import Desk
from flow_executors.interchange.pool import Manager, Profile
from flow_executors.manager.demand import Demand, misfit
from flow_executors.wire.frames import ALL

_FAILURES = 64
"""Shapes without room after which a look ends."""
_AGAIN_S = 0.02
_ALL_AGAIN_S = 0.2
"""A look may miss a manager with room: so all is looked at again now and then."""
_LOOK = 32
"""Managers of one profile that are looked at for one task."""
_BATCH = 256
_ENDING_S = 1.0
_JOINING_S = 1.0
"""How long after a manager came others of its block may follow that are bigger."""
_PATIENCE_S = 30.0
"""How long after a manager came blocks that were asked for too may come and be bigger."""


class Packer:
    """Moves tasks of classes of their own to managers where they can start at once."""

    __slots__ = ("_aside", "_complete", "_desk", "_packed", "_reserving", "_stuck", "look_at")

    def __init__(self, desk: Desk, packed: bool) -> None:
        self._desk = desk
        self._packed = packed
        self._aside: dict[Shape, None] = {}  # tried in this look
        self._complete = True
        self._stuck = 0
        self._reserving: dict[int, Shape] = {}
        self.look_at: float | None = None
        """When to look again although nothing happens; None: not."""

    def wanted(self, now: float) -> bool:
        """Whether there is a reason to look."""
        desk = self._desk
        if not desk.waiting.special:
            if self._reserving:
                self._release_idle()
            self.look_at = None
            return False
        due = self.look_at is not None and now >= self.look_at
        if desk.pool.freed or (due and self._complete):
            self._begin()
        return due or desk.pool.freed or desk.waiting.fresh

    def _begin(self) -> None:
        """Begin with the most urgent; else a look goes on where the last one ended, or with what has come since."""
        self._desk.waiting.stand_again(self._aside)
        self._aside.clear()

    def place_before(self, rank: Rank, now: float) -> None:
        """Place what is more urgent than the default class."""
        self._desk.pool.freed = self._desk.waiting.fresh = False
        self._stuck = 0
        self.look_at = None
        self._look(rank, now)

    def place_rest(self, now: float) -> bool:
        """Place the rest; True when managers that were kept free are open to all again."""
        self._complete = self._look(None, now)
        if self._aside and self.look_at is None:
            self.look_at = now + (_ALL_AGAIN_S if self._complete else _AGAIN_S)
        return self._release_idle()

    def _look(self, before: Rank | None, now: float) -> bool:
        """Place shape after shape; True when all were tried."""
        if self._stuck >= _FAILURES:
            return False
        for shape in self._desk.waiting.shapes():
            self._aside[shape] = None
            if before is not None and shape.rank > before:
                del self._aside[shape]
                self._desk.waiting.stand_again((shape,))
                return False
            if self._place(shape, now):
                del self._aside[shape]
            else:
                self._stuck += 1
                self._without_room(shape, before is not None, now)
                if self._stuck >= _FAILURES:
                    return False
        return True

    # -- placing

    def _place(self, shape: Shape, now: float) -> bool:
        """Place tasks of a shape; False when some are left."""
        while (queue := shape.first()) is not None:
            manager = self._find(shape, queue.rank)
            if manager is None:
                return False
            demand, taken = shape.demand(manager.capacity), Slice()
            share = self._share(manager, queue.count)
            while True:
                queue.take_into(taken, 1)
                manager.take_special(taken.keys[-1], demand)
                share -= 1
                if share <= 0 or shape.first() is not queue or not manager.fits_now(demand):
                    break
            self._desk.give(manager, queue.class_id, taken)
        return True

    def _share(self, manager: Manager, count: int) -> int:
        """How many tasks one manager is given at once: a share, that all have something to do."""
        if self._packed or manager.profile is None:
            return _BATCH
        return min(_BATCH, -(-count // max(1, len(manager.profile.free))))

    def _find(self, shape: Shape, rank: Rank) -> Manager | None:
        for profile in self._desk.pool.profiles.values():
            if profile.free and not self._never(shape, profile):
                found = self._find_in(profile, shape, rank)
                if found is not None:
                    return found
        return None

    def _find_in(self, profile: Profile, shape: Shape, rank: Rank) -> Manager | None:
        free = profile.free
        for number in sorted(free)[:_LOOK] if self._packed else list(islice(free, _LOOK)):
            manager = free[number]
            free.move_to_end(number)
            mine = (
                manager.reserved_for is None or manager.reserved_for[0] == id(shape) or rank < manager.reserved_for[1]
            )
            if mine and manager.fits_now(shape.demand(manager.capacity)) and self._lasts(shape, manager):
                return manager
        return None

    def _lasts(self, shape: Shape, manager: Manager) -> bool:
        """Whether the block of a manager lives long enough."""
        need, ends = shape.need_s, manager.offer.ends_at_ns
        return not (need and ends) or ends - self._desk.time_ns() >= (need + _ENDING_S) * 1e9

    # -- what finds no room

    def _without_room(self, shape: Shape, urgent: bool, now: float) -> None:
        pool = self._desk.pool
        if not pool.by_number:
            return
        reasons = [self._never(shape, profile) for profile in pool.profiles.values()]
        if all(reasons):
            self._refuse_in_time(shape, sorted(set(reasons)), now)
        elif urgent or not self._desk.waiting.default.count:
            self._reserve(shape, now)

    def _never(self, shape: Shape, profile: Profile) -> str:
        """Say why tasks of a shape can never run on such managers; empty if they can."""
        return never(shape.resources, shape.need_s, profile)

    def _refuse_in_time(self, shape: Shape, reasons: list[str], now: float) -> None:
        """Refuse what fits nowhere, but not while nodes may still come of which nothing is known."""
        desk = self._desk
        when = desk.joined_at + (_PATIENCE_S if desk.expected else _JOINING_S)
        if now >= when:
            text = f"no node of this executor can ever run it: {'; '.join(reasons[:3])}"
            desk.report(shape.clear(), Verdict.REFUSED, text.encode())
        else:
            self.look_at = min(when, self.look_at or when)

    def _reserve(self, shape: Shape, now: float) -> None:
        """Keep managers free of less urgent tasks for one that waits and needs more room than is ever free."""
        desk, queue = self._desk, shape.first()
        shape.reserved &= desk.pool.by_number.keys()
        if queue is None or queue.rank[0] > now / AGEING_S:  # below the usual priority, and not aged yet
            return
        wanted = min(queue.count, max(1, len(desk.pool.by_number) // 2)) - len(shape.reserved)
        for profile in desk.pool.profiles.values():
            if wanted > 0 and not self._never(shape, profile):
                for number in list(islice(profile.managers, _LOOK)):
                    profile.managers.move_to_end(number)
                    manager = profile.managers[number]
                    if wanted > 0 and self._may_be_reserved(manager, shape, shape.demand(manager.capacity)):
                        self._keep_free(manager, shape, queue.rank)
                        wanted -= 1

    def _may_be_reserved(self, manager: Manager, shape: Shape, demand: Demand) -> bool:
        return (
            manager.reserved_for is None
            and not manager.closed
            and manager.has_the_rest(demand)
            and self._lasts(shape, manager)
        )

    def _keep_free(self, manager: Manager, shape: Shape, rank: Rank) -> None:
        desk = self._desk
        manager.reserved_for = (id(shape), rank)
        shape.reserved.add(manager.number)
        self._reserving[id(shape)] = shape
        if manager.backlog:
            desk.recall(manager, ALL)
        desk.pool.settle(manager)

    def _release_idle(self) -> bool:
        """Give back the managers kept free for shapes of which nothing waits any more."""
        over = [(number, shape) for number, shape in self._reserving.items() if shape.first() is None]
        for number, shape in over:
            self._release(number, shape)
        return bool(over)

    def _release(self, number: int, shape: Shape) -> None:
        del self._reserving[number]
        pool = self._desk.pool
        for one in shape.reserved:
            manager = pool.by_number.get(one)
            if manager is not None and manager.reserved_for is not None and manager.reserved_for[0] == number:
                manager.reserved_for = None
                pool.settle(manager)
        shape.reserved.clear()


def never(resources: Resources, need_s: float, profile: Profile) -> str:
    """Say why tasks that take such resources, and such a time, can never run on such managers; empty if they can."""
    if need_s + _ENDING_S > profile.life_s and need_s:
        return f"it needs running_time_min={need_s:g} s, a block lasts {profile.life_s:.0f} s (walltime)"
    return misfit(resources, profile.largest)
