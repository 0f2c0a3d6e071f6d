"""The scheduler of the interchange: hands out batches of the default class, and packs tasks of all other classes.

Batches go whole to whichever manager is idle, then to those that prefetch; the most urgent task of another class that
fits goes where it fits, and what fits nowhere is refused. A look costs no more for thousands of classes or managers
than for a few: shapes of tasks and profiles of managers stand for them, a look ends after so many failures and is
resumed a moment later, and nothing is looked at before some manager has more room than before.
"""

from __future__ import annotations

from collections import OrderedDict
from itertools import islice

from flow_core.interfaces.call import Resources
from flow_core.interfaces.outcome import Verdict
from flow_executors.common.resources import ResourceRequest, unsatisfiable_reason
from flow_executors.interchange.gang_scheduler import ENDING_S, GangScheduler, end_of, lasts
from flow_executors.interchange.gangs import Gangs
from flow_executors.interchange.managers import CapacityClass, ManagerRecord
from flow_executors.interchange.pending import AGEING_S, ClassQueue, QueuedBatch, Rank, RequestClass
from flow_executors.interchange.reservations import Reservations
from flow_executors.interchange.state import InterchangeState
from flow_executors.wire.kinds import Buffer

# Shapes without room after which a look ends, so that thousands of classes do not keep the interchange from its
# messages.
_FAILURES = 64
# As many shapes of one node as one of ranks costs, for which blocks are looked through.
_GANG_FAILURES = 8
# Seconds until a look that ended early is resumed where it stopped.
_AGAIN_S = 0.02
# Seconds until all shapes are tried again: a look tries some managers only, and may have missed one with room.
_ALL_AGAIN_S = 0.2
# Managers of one profile that are tried for one task: a bound on the cost, the others come in later looks.
_PACKING_LOOK = 32
# Most tasks that one manager is given in one message of such a class.
_PACKING_BATCH = 256
# Seconds for which a task waits for another node than those on which it failed, while there are others.
_AVOIDS_S = 15.0
_REFUSED_ADVICE = (
    "Ask for less with resource_specification=, or have the executor's provider ask for larger nodes or longer blocks"
)
_GANG_REFUSED_ADVICE = (
    "Ask for less with resource_specification=, or have the executor's provider ask for more nodes in a block "
    "(nodes_per_block) or for larger ones"
)
# Seconds after a manager came in which others of its block may follow that are larger: nothing is refused before.
_JOINING_S = 1.0
# The same while blocks that were asked for have no manager yet: they may be larger, too.
_PATIENCE_S = 30.0


class BinPackingScheduler:
    """Moves tasks of classes of their own to managers where they can start at once."""

    __slots__ = ("_complete", "_packed", "_reservations", "_shared", "_stuck", "_tried", "gangs", "look_at")

    def __init__(self, shared: InterchangeState, packed: bool, gangs: Gangs, managers_per_block: int) -> None:
        self._shared = shared
        self._reservations = Reservations(shared)
        self.gangs = GangScheduler(shared, gangs, self._reservations, managers_per_block)
        self._packed = packed
        self._tried: dict[RequestClass, None] = {}  # tried in this look
        self._complete = True
        self._stuck = 0
        self.look_at: float | None = None
        """When to look again although nothing happens; None: not."""

    def wanted(self, now: float) -> bool:
        """Whether there is a reason to look."""
        shared = self._shared
        if not shared.waiting.special:
            # Nothing waits any more, so no manager need be kept free.
            if self._reservations.shapes:
                self._reservations.release_idle()
            self.look_at = None
            return False
        # Else nothing can have changed: without more room or new tasks a look would fail again.
        due = self.look_at is not None and now >= self.look_at
        if shared.pool.freed or (due and self._complete):
            self._begin()
        return due or shared.pool.freed or shared.waiting.fresh

    def _begin(self) -> None:
        """Begin with the most urgent; else a look goes on where the last one ended, or with what has come since."""
        self._shared.waiting.requeue(self._tried)
        self._tried.clear()

    def place_before(self, rank: Rank, now: float) -> None:
        """Place what is more urgent than the default class."""
        # Before the look: what is freed during it leads to the next one.
        self._shared.pool.freed = self._shared.waiting.fresh = False
        self._stuck = 0
        self.look_at = None
        self.gangs.begin()
        self._look(rank, now)

    def place_rest(self, now: float) -> bool:
        """Place the rest; True when managers that were kept free are open to all again."""
        self.gangs.begin()
        self._complete = self._look(None, now)
        if self._tried and self.look_at is None:
            self.look_at = now + (_ALL_AGAIN_S if self._complete else _AGAIN_S)
        return self._reservations.release_idle()

    def _look(self, before: Rank | None, now: float) -> bool:
        """Place shape after shape; True when all were tried."""
        if self._stuck >= _FAILURES:
            return False
        for shape in self._shared.waiting.shapes():
            self._tried[shape] = None
            # Shapes come most urgent first: this one and all after it wait for the default class.
            if before is not None and shape.rank > before:
                del self._tried[shape]
                self._shared.waiting.requeue((shape,))
                return False
            if self._place(shape, now):
                del self._tried[shape]
            else:
                self._stuck += 1 if shape.ranks is None else _GANG_FAILURES
                self._without_room(shape, before is not None, now)
                if self._stuck >= _FAILURES:
                    return False
        return True

    # -- placing

    def _place(self, shape: RequestClass, now: float) -> bool:
        """Place tasks of a shape; False when some are left."""
        while (queue := shape.first()) is not None:
            avoid = self._avoided(shape, queue, now)
            if shape.ranks is not None:
                if not self.gangs.place(shape, avoid, now):
                    return False
                continue
            manager = self._find(shape, queue, avoid, now)
            if manager is None:
                return False
            until = end_of(queue, now)
            # One message for as many tasks as the manager can start: each costs the same as one task.
            demand, taken = shape.demand(manager.capacity), QueuedBatch()
            share = self._share(manager, queue.count)
            while True:
                # One by one, since after each the next may be of another queue, or find no room.
                queue.take_into(taken, 1)
                manager.take_special(taken.keys[-1], demand)
                if until is not None:
                    manager.until[taken.keys[-1]] = until
                share -= 1
                if share <= 0 or shape.first() is not queue or not manager.fits_now(demand):
                    break
            self._shared.give(manager, queue.class_id, taken)
        return True

    def _share(self, manager: ManagerRecord, count: int) -> int:
        """How many tasks one manager is given at once: a share, that all have something to do."""
        if self._packed or manager.profile is None:
            return _PACKING_BATCH
        return min(_PACKING_BATCH, -(-count // max(1, len(manager.profile.free))))

    def _avoided(self, shape: RequestClass, queue: ClassQueue, now: float) -> tuple[str, ...]:
        """Return the nodes to which the first task is not to go: none where there are no others, or for too long."""
        if not shape.avoid or now - queue.since >= _AVOIDS_S or not self._shared.pool.has_node_but(shape.avoid):
            return ()
        return shape.avoid

    def _find(self, shape: RequestClass, queue: ClassQueue, avoid: tuple[str, ...], now: float) -> ManagerRecord | None:
        for profile in self._shared.pool.profiles.values():
            if profile.free and not self._never(shape, profile):
                found = self._find_in(profile, shape, queue, avoid, now)
                if found is not None:
                    return found
        return None

    def _find_in(
        self, profile: CapacityClass, shape: RequestClass, queue: ClassQueue, avoid: tuple[str, ...], now: float
    ) -> ManagerRecord | None:
        free = profile.free
        # Lowest numbers first fills one block before the next, so that whole blocks become idle and can be given back.
        for number in sorted(free)[:_PACKING_LOOK] if self._packed else list(islice(free, _PACKING_LOOK)):
            manager = free[number]
            # The next look begins with others: managers beyond the bound get their turn.
            free.move_to_end(number)
            if avoid and manager.offer.node in avoid:
                continue
            demand = shape.demand(manager.capacity)
            mine = manager.reserved_for is None or self.gangs.is_open(manager, demand, shape, queue, now)
            if mine and manager.fits_now(demand) and lasts(self._shared, shape, manager):
                return manager
        return None

    # -- what finds no room

    def _without_room(self, shape: RequestClass, urgent: bool, now: float) -> None:
        pool = self._shared.pool
        # Without managers nothing is known of nodes: nobody can say that a task never fits.
        if not pool.by_number:
            return
        if shape.ranks is not None:
            self._gang_without_room(shape, urgent, now)
            return
        reasons = [self._never(shape, profile) for profile in pool.profiles.values()]
        # Refused only if no profile could ever run it; a profile that could but is full makes it wait.
        if all(reasons):
            self._refuse_in_time(shape, sorted(set(reasons)), now)
        elif urgent or not self._shared.waiting.default.count:
            self._reserve(shape, now)

    def _gang_without_room(self, shape: RequestClass, urgent: bool, now: float) -> None:
        queue, reasons = shape.first(), self.gangs.never(shape)
        if reasons:
            self._refuse_in_time(shape, reasons, now, _GANG_REFUSED_ADVICE)
        elif queue is not None and (urgent or not self._shared.waiting.default.count):
            self.gangs.reserve(shape, self._avoided(shape, queue, now), now)

    def _never(self, shape: RequestClass, profile: CapacityClass) -> str:
        """Return why tasks of a shape can never run on such managers; empty if they can."""
        return never(shape.resources, shape.need_s, profile)

    def _refuse_in_time(
        self, shape: RequestClass, reasons: list[str], now: float, advice: str = _REFUSED_ADVICE
    ) -> None:
        """Refuse what fits nowhere, but not while nodes may still come of which nothing is known."""
        shared = self._shared
        when = shared.joined_at + (_PATIENCE_S if shared.expected else _JOINING_S)
        if now >= when:
            text = f"no node of this executor can ever run it: {'; '.join(reasons[:3])}. {advice}"
            shared.report(shape.clear(), Verdict.REFUSED, text.encode())
        else:
            self.look_at = min(when, self.look_at or when)

    def _reserve(self, shape: RequestClass, now: float) -> None:
        """Keep managers free of less urgent tasks for one that waits and needs more room than is ever free."""
        shared, queue = self._shared, shape.first()
        # Managers that left are no reservation any more.
        shape.reserved &= shared.pool.by_number.keys()
        if queue is None or queue.rank[0] > now / AGEING_S:  # below the usual priority, and not aged yet
            return
        # At most half of the managers: the others keep working for everybody else.
        wanted = min(queue.count, max(1, len(shared.pool.by_number) // 2)) - len(shape.reserved)
        for profile in shared.pool.profiles.values():
            if wanted > 0 and not self._never(shape, profile):
                for number in list(islice(profile.managers, _PACKING_LOOK)):
                    profile.managers.move_to_end(number)
                    manager = profile.managers[number]
                    demand = shape.demand(manager.capacity)
                    if wanted > 0 and self._may_be_reserved(manager, shape, demand):
                        self._reservations.keep(manager, shape, queue.rank, demand)
                        wanted -= 1

    def _may_be_reserved(self, manager: ManagerRecord, shape: RequestClass, demand: ResourceRequest) -> bool:
        return (
            manager.reserved_for is None
            and not manager.closed
            and manager.offer.node not in shape.avoid
            and manager.has_the_rest(demand)
            and lasts(self._shared, shape, manager)
        )


def never(resources: Resources, need_s: float, profile: CapacityClass) -> str:
    """Return why tasks that take such resources, and such a time, can never run on such managers; empty if they can."""
    if need_s + ENDING_S > profile.life_s and need_s:
        what = "running_time_min and warn_before_end_s together"
        return f"it needs a block that lasts {need_s:g} s ({what}), a block lasts {profile.life_s:.0f} s (walltime)"
    return unsatisfiable_reason(resources, profile.largest)


# Most tasks in one message. Only the magnitude matters: a task more costs next to nothing from a few dozen on.
_BATCH = 4096
# Seconds between two recalls, so that tasks are not moved again before the effect of the last move is seen.
_RECALL_EVERY_S = 0.005
# Loaded managers that are compared; of these the one with most work a worker is asked. The next look begins with
# others.
_LOOK = 8


class Dispatcher:
    """Moves tasks from the queues to managers with room."""

    __slots__ = ("_next_recall", "_packed", "_packer", "_shared")

    def __init__(
        self, shared: InterchangeState, packed: bool, gangs: Gangs | None = None, managers_per_block: int = 0
    ) -> None:
        self._shared = shared
        self._next_recall = 0.0
        self._packed = packed
        self._packer = BinPackingScheduler(shared, packed, gangs or Gangs(shared), managers_per_block)

    def dispatch(self, now: float) -> None:
        """Hand out what can be handed out, the most urgent first."""
        shared, packer = self._shared, self._packer
        if packer.wanted(now):
            # Three steps: what is more urgent than the default class, that class, then the rest into what is left.
            packer.place_before(shared.waiting.default.rank, now)
            self._default()
            if packer.place_rest(now):
                self._default()
        elif shared.waiting.default.count:
            self._default()
        if shared.pool.idle and shared.pool.loaded:
            self._rebalance(now)

    @property
    def gangs(self) -> GangScheduler:
        """What places tasks of ranks."""
        return self._packer.gangs

    def pass_on(self, digest: bytes, key: int, message: Buffer) -> bool:
        """Hand out a message of one task of the default class as it is; False if that needs more thought.

        So it goes where no task waits, and the manager whose turn it is has nothing to do and knows the function.
        """
        shared = self._shared
        pool = shared.pool
        # Only where no task waits: one that came before must not be overtaken.
        if shared.waiting.count or not pool.idle:
            return False
        manager = self._first(pool.idle)
        # The blob has to go ahead of the task, which is ``give``'s work.
        if digest not in manager.known:
            return False
        manager.out.add(key)
        manager.idle_since = None
        shared.send(manager, message)
        pool.settle(manager)
        pool.rotate(manager)
        return True

    def tick(self, now: float) -> None:
        """Look again at what depends on time."""
        self.dispatch(now)

    def next_deadline(self, now: float) -> float | None:
        """Return when a rebalancing that was put off is due, or another look at tasks that fit nowhere."""
        pool, later = self._shared.pool, self._packer.look_at
        if pool.idle and pool.loaded and any(not manager.recalling for manager in pool.loaded.values()):
            rebalance = max(now + 0.001, self._next_recall)
            return rebalance if later is None else min(rebalance, later)
        return later

    def _default(self) -> None:
        queue, pool = self._shared.waiting.default, self._shared.pool
        while queue.count and pool.idle:
            manager = self._first(pool.idle)
            # With fewer tasks than slots each gets a worker of its own; prefetching them would leave other workers
            # idle. A manager that is kept free has no more room than it says.
            plenty = queue.count > pool.total_slots or manager.reserved_for is not None
            self._give(manager, manager.room if plenty else manager.free_slots)
        while queue.count and pool.prefetching:
            manager = self._first(pool.prefetching)
            # In proportion to its slots, rounded up: else the first managers would hold all that is left.
            share = -(-queue.count * manager.slots // max(1, pool.total_slots))
            self._give(manager, min(manager.room, max(share, 1)))

    def _first(self, index: OrderedDict[int, ManagerRecord]) -> ManagerRecord:
        """Return the next in turn, or the one that came first where blocks are to be filled one after the other."""
        return index[min(index)] if self._packed else next(iter(index.values()))

    def _give(self, manager: ManagerRecord, count: int) -> None:
        shared = self._shared
        queue = shared.waiting.default
        taken = queue.take(min(count, _BATCH))
        manager.out.update(taken.keys)
        shared.give(manager, queue.class_id, taken)
        shared.pool.rotate(manager)

    def _rebalance(self, now: float) -> None:
        """Some manager is idle while another has more than it can run: ask that one for half of the rest."""
        pool = self._shared.pool
        if now < self._next_recall:
            return
        self._next_recall = now + _RECALL_EVERY_S
        loaded = [manager for manager in islice(pool.loaded.values(), _LOOK) if not manager.recalling]
        if loaded:
            manager = max(loaded, key=lambda one: one.backlog / max(1, one.slots))
            self._shared.recall(manager, -(-manager.backlog // 2))
        for number in list(islice(pool.loaded, _LOOK)):
            pool.loaded.move_to_end(number)
