"""Where tasks of ranks are placed: all their managers of one block at once, or none. Pure.

A task that finds no room has managers kept free for it: as many as it needs, of one block, those first that are free
already. Only the most urgent one has such a reservation, so that two never wait for each other's nodes; whichever other
manager of the block has room first takes the place of one that has not. Less urgent tasks use the managers that are
kept only if their walltime ends before these are all free, as far as walltimes tell. The rank of a task is fixed (see
``pending``), so the reservation moves to more urgent tasks a finite number of times: none waits for ever.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from heapq import nsmallest

from flow_core.interfaces.call import Resources
from flow_executors.common.resources import ResourceRequest
from flow_executors.common.task_ranks import RankRequest
from flow_executors.interchange.gangs import Gangs, Share
from flow_executors.interchange.managers import CapacityClass, ManagerRecord
from flow_executors.interchange.pending import AGEING_S, ClassQueue, Rank, RequestClass
from flow_executors.interchange.reservations import Reservations
from flow_executors.interchange.state import InterchangeState

ENDING_S = 1.0
"""Seconds kept at the end of a block, for the result of a task that needs all the time that is left."""
# Seconds beyond its walltime in which a task is surely over: its worker is killed five seconds after it.
_GRACE_S = 6.0


class GangScheduler:
    """Places tasks of ranks.

    Args:
        shared: The state of the interchange.
        gangs: Those that are out.
        reservations: Which managers are kept free.
        managers_per_block: Most managers of a block; 0 where that is not known.
    """

    __slots__ = ("_expected", "_free", "_gangs", "_holder", "_managers_per_block", "_reservations", "_shared")

    def __init__(
        self, shared: InterchangeState, gangs: Gangs, reservations: Reservations, managers_per_block: int
    ) -> None:
        self._shared = shared
        self._gangs = gangs
        self._reservations = reservations
        self._managers_per_block = managers_per_block
        self._holder: RequestClass | None = None
        """The shape for which managers are kept free."""
        self._free: dict[str, list[ManagerRecord]] | None = None
        self._expected: float | None = None

    def begin(self) -> None:
        """A look begins: managers may have other room than before."""
        self._free = self._expected = None
        if self._holder is not None and self._holder.first() is None:
            self.release()

    # -- placing

    def place(self, shape: RequestClass, avoid: Sequence[str], now: float) -> bool:
        """Place the most urgent task of a shape; False if it has no room now."""
        queue = shape.first()
        if queue is None or shape.ranks is None:
            return True
        shares = self._find(shape, shape.ranks, queue, avoid, now)
        if not shares:
            return False
        until = end_of(queue, now)
        self._gangs.place(queue.class_id, queue.take(1), shares, until)
        # For the next task of the shape managers are chosen anew: another shape may be more urgent by then.
        if self._holder is shape:
            self.release()
        return True

    def release(self) -> None:
        """Keep nothing free any more."""
        if self._holder is not None:
            self._reservations.release(self._holder)
            self._holder = self._expected = None

    def _find(
        self, shape: RequestClass, wanted: RankRequest, queue: ClassQueue, avoid: Sequence[str], now: float
    ) -> list[Share]:
        """Return where the most urgent task can start now, the head first; nothing where it cannot."""
        # Blocks with the least room first: so another keeps as many free managers together as it has.
        for managers in sorted(self._rooms().values(), key=len):
            mine = [manager for manager in managers if self._eligible(manager, shape, avoid)]
            found = self._within(wanted, mine, shape, queue, now)
            if found:
                return found
        return []

    def _rooms(self) -> dict[str, list[ManagerRecord]]:
        """Return the managers with a slot that has nothing to do, by block; as they were when the look began."""
        if self._free is None:
            self._free = {}
            for profile in self._shared.pool.profiles.values():
                for manager in profile.free.values():
                    self._free.setdefault(manager.offer.block, []).append(manager)
        return self._free

    def _eligible(self, manager: ManagerRecord, shape: RequestClass, avoid: Sequence[str]) -> bool:
        """Whether a manager could have part of such a task at all."""
        return (
            manager.offer.ranks is not None
            and not manager.closed
            and manager.offer.node not in avoid
            and lasts(self._shared, shape, manager)
        )

    def is_open(
        self, manager: ManagerRecord, demand: ResourceRequest, shape: RequestClass, queue: ClassQueue, now: float
    ) -> bool:
        """Whether the most urgent task of a shape may go to a manager that may be kept free for another one."""
        kept = manager.reserved_for
        if kept is None or kept[0] == id(shape) or queue.rank < kept[1] or manager.fits_beside_kept(demand):
            return True
        holder = self._holder
        if holder is None or kept[0] != id(holder):
            return False
        until = end_of(queue, now)
        return until is not None and until <= self._full_until(holder, now)

    def _full_until(self, holder: RequestClass, now: float) -> float:
        """Return until when the managers that are kept have surely not all room, as far as walltimes tell."""
        # Once a look: what is let in meanwhile ends before, and changes nothing.
        if self._expected is None:
            kept = ((manager, manager.kept) for manager in self._kept(holder))
            ends = (_full_until(manager, demand, now) for manager, demand in kept if demand is not None)
            self._expected = max(ends, default=now)
        return self._expected

    def _within(
        self, wanted: RankRequest, managers: Sequence[ManagerRecord], shape: RequestClass, queue: ClassQueue, now: float
    ) -> list[Share]:
        """Return the shares of a task among managers of one block; nothing where they have no room for it."""
        if wanted.nodes is None:
            return self._anywhere(wanted, managers, shape, queue, now)
        if len(managers) < wanted.nodes:
            return []
        shares: list[Share] = []
        rest = [*managers]
        # The larger shares first: what has room for these has room for the others.
        for ranks, count in _sizes(wanted.shares()):
            fitting = [
                (manager, demand)
                for manager, demand in _demands(wanted, ranks, rest)
                if manager.fits_now(demand) and self.is_open(manager, demand, shape, queue, now)
            ]
            if len(fitting) < count:
                return []
            # The fullest that have room, so that emptier ones stay for what needs more of them.
            best = nsmallest(count, fitting, key=lambda one: (one[0].free_slots - one[1].slots, one[0].number))
            shares += [(manager, ranks, demand) for manager, demand in best]
            chosen = {manager.number for manager, _ in best}
            rest = [manager for manager in rest if manager.number not in chosen]
        return shares

    def _anywhere(
        self, wanted: RankRequest, managers: Sequence[ManagerRecord], shape: RequestClass, queue: ClassQueue, now: float
    ) -> list[Share]:
        """Return shares of ranks that may be anywhere: of one node if one has room, else of as few as can be."""
        rooms = []
        for manager in managers:
            gpus = len(manager.capacity.devices) - manager.special_gpus
            most = min(wanted.ranks, wanted.most_ranks(manager.free_slots, gpus, manager.capacity))
            demand = wanted.demand(most, manager.capacity) if most else None
            if demand is not None and manager.fits_now(demand) and self.is_open(manager, demand, shape, queue, now):
                rooms.append((most, manager))
        return _spread(wanted, rooms)

    # -- reserving

    def reserve(self, shape: RequestClass, avoid: Sequence[str], now: float) -> None:
        """Keep managers free for a task that found no room, unless a more urgent one has a reservation."""
        queue, wanted, holder = shape.first(), shape.ranks, self._holder
        if queue is None or wanted is None or queue.rank[0] > now / AGEING_S:  # below the usual priority, not aged yet
            return
        if holder is not None and holder is not shape:
            if holder.rank < queue.rank:
                return
            self.release()
        self._holder, self._expected = shape, None
        if not self._keep_those_with_room(shape, wanted, queue.rank, avoid):
            self._choose(shape, wanted, queue.rank, avoid, now)
        if not shape.reserved:
            self._holder = None

    def _keep_those_with_room(self, shape: RequestClass, wanted: RankRequest, rank: Rank, avoid: Sequence[str]) -> bool:
        """Exchange managers that are kept and full for others of the block that have room; False: none is kept yet.

        Also where one that is kept is gone, or has been closed.
        """
        kept = self._kept(shape)
        if not kept or any(not self._eligible(manager, shape, avoid) for manager in kept):
            return False
        if wanted.nodes is not None and len(kept) < wanted.nodes:
            return False
        full = [manager for manager in kept if manager.kept is not None and not manager.fits_now(manager.kept)]
        for manager in self._rooms().get(kept[0].offer.block, ()):
            demand = full[-1].kept if full else None
            if demand is None:
                break
            if self._may_be_kept(manager, rank) and self._eligible(manager, shape, avoid) and manager.fits_now(demand):
                self._reservations.open(full.pop())
                self._reservations.keep(manager, shape, rank, demand)
        return True

    def _kept(self, shape: RequestClass) -> list[ManagerRecord]:
        by_number = self._shared.pool.by_number
        shape.reserved &= by_number.keys()
        return [by_number[number] for number in shape.reserved]

    def _may_be_kept(self, manager: ManagerRecord, rank: Rank) -> bool:
        return manager.reserved_for is None or rank < manager.reserved_for[1]

    def _choose(self, shape: RequestClass, wanted: RankRequest, rank: Rank, avoid: Sequence[str], now: float) -> None:
        """Keep those managers of one block free that are expected to have room first."""
        best: tuple[float, float, int] | None = None
        chosen: list[tuple[ManagerRecord, ResourceRequest]] = []
        for number, managers in enumerate(self._shared.pool.by_block.values()):
            mine = [
                manager
                for manager in managers.values()
                if self._eligible(manager, shape, avoid)
                and (self._may_be_kept(manager, rank) or (manager.reserved_for or (0,))[0] == id(shape))
            ]
            found = self._soonest(wanted, mine, now)
            if found:
                ready = [_ready(manager, demand, now) for manager, demand in found]
                score = max(one[0] for one in ready), sum(one[1] for one in ready), number
                if best is None or score < best:
                    best, chosen = score, found
        keep = {manager.number for manager, _ in chosen}
        for manager in self._kept(shape):
            if manager.number not in keep:
                self._reservations.open(manager)
        for manager, demand in chosen:
            if manager.number not in shape.reserved:
                self._reservations.keep(manager, shape, rank, demand)

    def _soonest(
        self, wanted: RankRequest, managers: Sequence[ManagerRecord], now: float
    ) -> list[tuple[ManagerRecord, ResourceRequest]]:
        """Return the managers that together have room for a task first; nothing where they never have."""
        able = [
            (manager, demand)
            for manager, demand in _demands(wanted, max(wanted.shares(), default=1), managers)
            if not wanted.unsatisfiable_reason(manager.capacity)
        ]
        able.sort(key=lambda one: (*_ready(one[0], one[1], now), one[0].number))
        if wanted.nodes is not None:
            return able[: wanted.nodes] if len(able) >= wanted.nodes else []
        found, left = [], wanted.ranks
        for manager, _ in able:
            ranks = min(left, wanted.most_ranks(manager.slots, len(manager.capacity.devices), manager.capacity))
            found.append((manager, wanted.demand(ranks, manager.capacity)))
            left -= ranks
            if left <= 0:
                return found
        return []

    # -- what can never be

    def never(self, shape: RequestClass) -> list[str]:
        """Return why tasks of a shape can never run on what is connected, if that is so."""
        return self.reasons(shape.ranks, shape.need_s)

    def reasons(self, wanted: RankRequest | None, need_s: float) -> list[str]:
        """Return why a task can never run on managers as are connected; nothing where it may."""
        if wanted is None:
            return []
        most = self._managers_per_block
        if most and (wanted.nodes or 1) > most:
            return [f"it asks for {wanted.nodes} nodes, and a block has managers on {most}"]
        profiles = self._shared.pool.profiles.values()
        reasons = {reason for profile in profiles for reason in [_never(wanted, need_s, profile)]}
        if not profiles or "" in reasons:
            return [] if not profiles or self._has_room_ever(wanted) else [self._too_many(wanted)]
        return sorted(reasons)

    def outlook(self, resources: Resources, need_s: float) -> tuple[int, int, int]:
        """Return the most nodes of a block that could have a share, the most that have room for one, and those kept."""
        wanted, holder = RankRequest.of(resources), self._holder
        if wanted is None:
            return 0, 0, 0
        able = ready = 0
        for managers in self._shared.pool.by_block.values():
            mine = [
                (manager, demand)
                for manager, demand in _demands(wanted, max(wanted.shares(), default=1), managers.values())
                if manager.offer.ranks is not None and not wanted.unsatisfiable_reason(manager.capacity)
            ]
            able = max(able, len(mine))
            ready = max(ready, sum(manager.fits_now(demand) for manager, demand in mine))
        kept = holder is not None and holder.resources == resources and holder.need_s == need_s
        return able, ready, len(holder.reserved) if holder is not None and kept else 0

    def lacking(self, now: float) -> tuple[int, ...]:
        """Return the nodes of one block that waiting tasks need where no block has as many; each number once.

        What can never run at all is left out, and so are managers that take nothing new.
        """
        found = set()
        for shape in self._shared.waiting.of_ranks():
            wanted = shape.ranks
            if wanted is None or not self._shared.pool.profiles or self.never(shape):
                continue
            blocks = self._shared.pool.by_block.values()
            able = ([one for one in managers.values() if self._eligible(one, shape, ())] for managers in blocks)
            if not any(self._soonest(wanted, managers, now) for managers in able):
                found.add(wanted.nodes or math.ceil(wanted.ranks / max(1, self._most_on_a_node(wanted))))
        return tuple(sorted(found))

    def _has_room_ever(self, wanted: RankRequest) -> bool:
        most = self._managers_per_block
        if wanted.nodes is not None or not most:
            return True
        return most * self._most_on_a_node(wanted) >= wanted.ranks

    def _most_on_a_node(self, wanted: RankRequest) -> int:
        return max(
            wanted.most_ranks(profile.largest.slots, len(profile.largest.devices), profile.largest)
            for profile in self._shared.pool.profiles.values()
        )

    def _too_many(self, wanted: RankRequest) -> str:
        room = self._managers_per_block * self._most_on_a_node(wanted)
        return f"it asks for {wanted.ranks} ranks, and a block has room for {room}"


def _never(wanted: RankRequest, need_s: float, profile: CapacityClass) -> str:
    if need_s + ENDING_S > profile.life_s and need_s:
        what = "running_time_min and warn_before_end_s together"
        return f"it needs a block that lasts {need_s:g} s ({what}), a block lasts {profile.life_s:.0f} s (walltime)"
    if all(manager.offer.ranks is None for manager in profile.managers.values()):
        manager = next(iter(profile.managers.values()), None)
        node = f" of node {manager.offer.node}" if manager is not None else ""
        software = f" ({manager.offer.software})" if manager is not None and manager.offer.software else ""
        return f"the flow-executors{node}{software} is older than tasks of ranks: install the script's there"
    return wanted.unsatisfiable_reason(profile.largest)


def end_of(queue: ClassQueue, now: float) -> float | None:
    """Return when the most urgent task of a queue is over at the latest if it starts now; None: nobody knows."""
    walltime_s = queue.spec.walltime_s
    return None if walltime_s is None else now + walltime_s + _GRACE_S


def lasts(shared: InterchangeState, shape: RequestClass, manager: ManagerRecord) -> bool:
    """Whether the block of a manager lives long enough for tasks of a shape."""
    need, ends = shape.need_s, manager.offer.ends_at_ns
    return not (need and ends) or ends - shared.time_ns() >= (need + ENDING_S) * 1e9


def _sizes(shares: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield the different sizes of shares, largest first, and how many there are of each."""
    for ranks in dict.fromkeys(shares):
        yield ranks, shares.count(ranks)


def _demands(
    wanted: RankRequest, ranks: int, managers: Iterable[ManagerRecord]
) -> Iterator[tuple[ManagerRecord, ResourceRequest]]:
    """Yield managers with what so many ranks take of each; equal nodes are asked for once."""
    known: dict[tuple[int, float], ResourceRequest] = {}
    for manager in managers:
        capacity = manager.capacity
        kind = capacity.slots, capacity.cores_per_worker
        if kind not in known:
            known[kind] = wanted.demand(ranks, capacity)
        yield manager, known[kind]


def _spread(wanted: RankRequest, rooms: list[tuple[int, ManagerRecord]]) -> list[Share]:
    """Return shares of as few managers as can be, given how many ranks each has room for."""
    rooms.sort(key=lambda one: (-one[0], one[1].number))
    if sum(most for most, _ in rooms) < wanted.ranks:
        return []
    shares: list[Share] = []
    left = wanted.ranks
    for at, (most, manager) in enumerate(rooms):
        # The last share goes where it fits best.
        if most >= left:
            most, manager = min((one for one in rooms[at:] if one[0] >= left), key=lambda one: (one[0], one[1].number))
        ranks = min(most, left)
        shares.append((manager, ranks, wanted.demand(ranks, manager.capacity)))
        left -= ranks
        if not left:
            break
    return shares


def _full_until(manager: ManagerRecord, demand: ResourceRequest, now: float) -> float:
    """Return until when a manager has surely no room for a demand, if each task uses all of its walltime."""
    lacking = demand.slots - manager.free_slots
    bounded = sorted((end, _slots_of(manager, key)) for key, end in manager.until.items())
    # Tasks without walltime may end at any moment.
    lacking -= manager.special_slots - sum(slots for _, slots in bounded) + len(manager.out)
    for end, slots in bounded:
        if lacking <= 0:
            break
        now = max(now, end)
        lacking -= slots
    return now


def _slots_of(manager: ManagerRecord, key: int) -> int:
    demand = manager.special.get(key) or manager.parts.get(key)
    return 0 if demand is None else demand.slots


def _ready(manager: ManagerRecord, demand: ResourceRequest, now: float) -> tuple[float, float]:
    """Return when a manager is expected to have room, as far as walltimes tell, and how much of it is taken."""
    taken = (manager.special_slots + len(manager.out)) / max(1, manager.slots)
    if manager.fits_now(demand):
        return now, taken
    bounded = len(manager.until) == len(manager.special) + len(manager.parts) and not manager.out
    return _full_until(manager, demand, now) if bounded else math.inf, taken
