"""The connected managers as the interchange knows them: capacity, liveness, revoked blocks.

A manager with room is picked in O(1): two ordered sets, no scan. Peers stand in the order of their last message, so
that the search for silent ones looks at the first only.
"""

from __future__ import annotations

import hmac
import math
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field

from flow_executors.common.resources import Capacity, ResourceRequest
from flow_executors.interchange.talk import TalkBudget
from flow_executors.wire.messages import Registration


class ManagerLiveness:
    """Peers by the time of their last message."""

    __slots__ = ("_lenient_until", "_seen", "threshold_s")

    def __init__(self, threshold_s: float) -> None:
        self.threshold_s = threshold_s
        self._lenient_until = -math.inf
        self._seen: OrderedDict[bytes, float] = OrderedDict()

    def heard(self, peer: bytes, now: float) -> None:
        """Note that a message of a peer came, so that it does not count as silent."""
        self._seen[peer] = now
        # Keeps the order by time, which lets ``silent`` stop at the first peer that is not.
        self._seen.move_to_end(peer)

    def forget(self, peer: bytes) -> None:
        """The peer is gone."""
        self._seen.pop(peer, None)

    def forgive(self, now: float, lenient_until: float = -math.inf) -> None:
        """Restart the silence of all peers: this process was stopped, so it could not read what they sent.

        Until ``lenient_until`` none of them counts as silent.
        """
        self._lenient_until = max(self._lenient_until, lenient_until)
        for peer in self._seen:
            self._seen[peer] = now

    def silent(self, now: float) -> list[bytes]:
        """Return the peers whose last message is older than the threshold."""
        found: list[bytes] = []
        if now < self._lenient_until:
            return found
        for peer, seen in self._seen.items():
            if now - seen <= self.threshold_s:
                break
            found.append(peer)
        return found

    def silence_s(self, peer: bytes, now: float) -> float:
        """Return the seconds since the last message of a peer; 0 for one that is not known."""
        return max(0.0, now - self._seen.get(peer, now))

    def next_deadline(self) -> float | None:
        """Return when the next peer would count as silent."""
        for seen in self._seen.values():
            return max(seen + self.threshold_s, self._lenient_until)
        return None


# Digests of blobs that are remembered a manager: a function whose values change at each call has one a call.
_KNOWN_LIMIT = 16384
# Nanoseconds before the stated end of a block within which a death counts as its end: neither clocks nor schedulers are
# exact.
_END_OF_BLOCK_NS = 5_000_000_000
# Share of a block's life: a task that used more of it would not end in another block either.
_MOST = 0.8

ProfileKey = tuple[int, float, int, int]


@dataclass(slots=True, eq=False)
class Gang:
    """A task of ranks that is out: it runs at its head, and its other managers, its members, keep parts for it.

    Attributes:
        key: The task.
        head: Where it runs.
        members: The others, with the ranks that belong there.
        ranks: Ranks altogether.
        talked: Whether its managers had something to say to each other.
        broken: Whether its head was told that a member is lost.
        over: Whether it has ended; its members are told in the same turn.
    """

    key: int
    head: ManagerRecord
    members: dict[int, tuple[ManagerRecord, int]]
    ranks: int
    ended: list[Gang] = field(repr=False)
    talked: bool = False
    broken: bool = False
    over: bool = False

    def end(self) -> None:
        """The head does not have it any more."""
        if not self.over:
            self.over = True
            self.ended.append(self)


class CapacityClass:
    """Managers that are alike: as many workers, cores and devices, and about as much memory.

    Attributes:
        largest: The capacity of the one with the most memory.
        life_s: The longest time that a block had left when one of them first came; infinite where not known.
        managers: All of them.
        free: Those with a slot that has nothing to do; the one that was tried last stands at the end.
    """

    __slots__ = ("free", "largest", "life_s", "managers")

    def __init__(self, capacity: Capacity) -> None:
        self.largest = capacity
        self.life_s = 0.0
        self.managers: OrderedDict[int, ManagerRecord] = OrderedDict()
        self.free: OrderedDict[int, ManagerRecord] = OrderedDict()


def capacity_key(capacity: Capacity) -> ProfileKey:
    """Return what managers that are alike share; memory by steps of about 10%."""
    memory = capacity.memory_mb
    # The free memory of equal nodes differs a little: by exact values each node would be a class of its own.
    step = max(0, memory.bit_length() - 4)
    return capacity.slots, capacity.cores_per_worker, len(capacity.devices), memory >> step << step


def capacity_of(offer: Registration) -> Capacity:
    """Return what a manager offers as slots, memory and devices."""
    # A manager states what it likes: each value is brought into its range before anything is computed with it.
    cores = offer.cores / offer.workers if offer.workers and offer.cores > 0 else 1.0
    devices = tuple(str(index) for index in range(max(0, int(min(offer.gpus, 1024.0)))))
    return Capacity(offer.workers, cores, max(0, offer.memory_mb), devices)


@dataclass(slots=True, eq=False)
class ManagerRecord:
    """One connected manager: what it offers and what it has.

    Attributes:
        peer: Its address on the socket; a new one after each reconnection.
        number: Its number in results.
        offer: Its registration.
        capacity: The offer as slots, memory and devices.
        slots: Tasks of the default class that can run at once, as it stated last.
        prefetch: Tasks of the default class that it takes beyond that, as it stated last.
        out: Keys of the default class that it has.
        special: Keys of other classes that it has, with what each takes.
        parts: Keys of tasks of ranks that run at other managers, with what is kept here for each.
        gangs: The tasks of ranks that run here, or have a part here.
        until: When tasks of other classes, or parts, are over at the latest, where their walltime tells.
        known: Digests of blobs that it was sent.
        classes: Class ids whose SPEC it was sent.
        received: Number of its last result message.
        acked: Number of the last result message acknowledged.
        held: It is to take nothing more.
        barred: Its node is held: it is to take nothing more until that is free again.
        draining: It was asked to drain.
        recalling: A RECALL is out.
        reserved_for: Number of the shape for which it is kept free, and the rank of the task that waits for it.
        kept: What is kept free for that one; others use what is free beyond it.
        life_s: Time that its block had left when it first came; infinite where not known.
        own_name: What it calls itself, where another one of its block had that name before; else empty.
        secret: As in its registration.
        proven: It was here before this interchange, and has shown that.
        talk: What it may still say beside results.
        started: When tasks that it runs for longer were started, as far as it reported (ns UTC).
        profile: Managers like this one.
        was_free: Its free slots when it was last settled.
        cut_off_at: Since when its connection is gone; None while connected.
        idle_since: Since when it has nothing to do; None while it has something.
    """

    peer: bytes
    number: int
    offer: Registration
    capacity: Capacity
    slots: int
    prefetch: int
    out: set[int] = field(default_factory=set)
    special: dict[int, ResourceRequest] = field(default_factory=dict)
    parts: dict[int, ResourceRequest] = field(default_factory=dict)
    gangs: dict[int, Gang] = field(default_factory=dict, repr=False)
    until: dict[int, float] = field(default_factory=dict)
    special_slots: int = 0
    special_memory_mb: int = 0
    special_gpus: float = 0.0
    known: set[bytes] = field(default_factory=set)
    classes: set[int] = field(default_factory=set)
    received: int = 0
    acked: int = 0
    held: bool = False
    barred: bool = False
    draining: bool = False
    recalling: bool = False
    reserved_for: tuple[int, tuple[float, int]] | None = None
    kept: ResourceRequest | None = None
    cut_off_at: float | None = None
    idle_since: float | None = None
    life_s: float = math.inf
    own_name: str = ""
    secret: str | None = field(default=None, repr=False)
    proven: bool = False
    talk: TalkBudget = field(default_factory=TalkBudget, repr=False)
    profile: CapacityClass | None = None
    was_free: int = 0
    started: dict[int, int] = field(default_factory=dict)

    @property
    def free_slots(self) -> int:
        """Slots that have nothing to do."""
        return self.slots - self.special_slots - len(self.out)

    @property
    def room(self) -> int:
        """Tasks of the default class that it can take now, prefetched ones included."""
        if self.closed or self.special_slots >= self.slots:
            return 0
        # Of a manager kept free for a large task the default class has what is free beyond that, or the slots would
        # never be free together; and nothing in advance.
        if self.reserved_for is not None:
            return max(0, self.free_slots - (self.slots if self.kept is None else self.kept.slots))
        return self.free_slots + self.prefetch

    @property
    def closed(self) -> bool:
        """Whether it takes nothing at present."""
        return self.held or self.barred or self.draining or self.cut_off_at is not None

    @property
    def backlog(self) -> int:
        """Tasks that it has and cannot have started yet."""
        return max(0, len(self.out) + self.special_slots - self.slots)

    @property
    def outstanding(self) -> int:
        """Tasks that it has."""
        return len(self.out) + len(self.special)

    def fits_now(self, demand: ResourceRequest) -> bool:
        """Whether a task of that demand could start at once."""
        return demand.slots <= self.free_slots and not self.closed and self.has_the_rest(demand)

    def has_the_rest(self, demand: ResourceRequest) -> bool:
        """Whether memory and devices for such a task are free."""
        memory = self.capacity.memory_mb
        if memory and self.special_memory_mb + demand.memory_mb > memory:
            return False
        # Fractions of devices add up to one only nearly.
        return self.special_gpus + demand.gpus <= len(self.capacity.devices) + 1e-9

    def fits_beside_kept(self, demand: ResourceRequest) -> bool:
        """Whether a task would leave free what is kept for another one, where all of that is free."""
        kept = self.kept
        if kept is None or not self.fits_now(kept):
            return False
        both = ResourceRequest(demand.slots + kept.slots, demand.memory_mb + kept.memory_mb, demand.gpus + kept.gpus)
        return self.fits_now(both)

    def take_special(self, key: int, demand: ResourceRequest) -> None:
        """Book a task of another class."""
        self.special[key] = demand
        self._book(demand)

    def take_part(self, key: int, demand: ResourceRequest) -> None:
        """Book a part of a task of ranks that runs at another manager."""
        self.parts[key] = demand
        self._book(demand)

    def drop_part(self, key: int) -> None:
        """Such a part is over."""
        demand = self.parts.pop(key, None)
        self.gangs.pop(key, None)
        if demand is not None:
            self._unbook(key, demand)

    def _book(self, demand: ResourceRequest) -> None:
        self.special_slots += demand.slots
        self.special_memory_mb += demand.memory_mb
        self.special_gpus += demand.gpus

    def _unbook(self, key: int, demand: ResourceRequest) -> None:
        self.until.pop(key, None)
        self.special_slots -= demand.slots
        self.special_memory_mb -= demand.memory_mb
        self.special_gpus -= demand.gpus

    def has(self, key: int) -> bool:
        """Whether a task is here."""
        return key in self.out or key in self.special

    def is_of(self, offer: Registration) -> bool:
        """Whether a registration is in this manager's name. Others of its block can use it, too: see ``Sessions``."""
        return (self.offer.block, self.own_name or self.offer.manager_id) == (offer.block, offer.manager_id)

    def drop(self, keys: Sequence[int] | set[int]) -> int:
        """Tasks are no longer here; return how many were."""
        if self.started:
            for key in keys:
                self.started.pop(key, None)
        before = len(self.out)
        self.out.difference_update(keys)
        count = before - len(self.out)
        if self.special:
            # Asked only where there are such tasks: most managers never have one.
            count += sum(self._drop_special(key) for key in keys)
        return count

    def exceeding(self, now_ns: int) -> list[int]:
        """Return the tasks that ran for most of their block's life, if that is over: not a death before its time."""
        ends = self.offer.ends_at_ns
        # A block that dies before its time says nothing about the length of its tasks.
        if not ends or now_ns < ends - _END_OF_BLOCK_NS:
            return []
        most_ns = _MOST * self.life_s * 1e9
        return sorted(key for key, started in self.started.items() if now_ns - started > most_ns)

    def _drop_special(self, key: int) -> int:
        demand = self.special.pop(key, None)
        if demand is None:
            return 0
        self._unbook(key, demand)
        if self.gangs and key in self.gangs:
            # Its other managers are told in the same turn, see ``Gangs``.
            self.gangs.pop(key).end()
        return 1

    def learn(self, digests: Iterable[bytes]) -> None:
        """Note blobs that it was sent; forgets all when there are too many (then some are sent twice)."""
        if len(self.known) > _KNOWN_LIMIT:
            self.known.clear()
        self.known.update(digests)


class ManagerPool:
    """All managers, found by address, and in the order in which they are to be given tasks."""

    __slots__ = (
        "barred",
        "by_block",
        "by_name",
        "by_node",
        "by_number",
        "by_peer",
        "freed",
        "idle",
        "loaded",
        "prefetching",
        "profiles",
        "total_prefetch",
        "total_slots",
        "working",
    )

    def __init__(self) -> None:
        self.by_peer: dict[bytes, ManagerRecord] = {}
        self.by_number: dict[int, ManagerRecord] = {}
        self.by_name: dict[tuple[str, str], ManagerRecord] = {}
        self.by_block: dict[str, dict[int, ManagerRecord]] = {}
        self.by_node: dict[str, dict[int, ManagerRecord]] = {}
        self.barred: frozenset[str] = frozenset()
        """Nodes whose managers get nothing."""
        self.idle: OrderedDict[int, ManagerRecord] = OrderedDict()
        self.prefetching: OrderedDict[int, ManagerRecord] = OrderedDict()
        self.loaded: OrderedDict[int, ManagerRecord] = OrderedDict()
        self.working: dict[int, ManagerRecord] = {}
        self.profiles: dict[ProfileKey, CapacityClass] = {}
        self.freed = False
        """Some manager has more free slots than it had; for others to set to False."""
        self.total_slots = 0
        self.total_prefetch = 0

    def has_others(self, manager: ManagerRecord, keys: Sequence[int]) -> bool:
        """Whether one of these tasks is at another manager: only one that lies would have its result."""
        return any(other is not manager and other.has(key) for key in keys for other in self.working.values())

    def number_of(self, offer: Registration) -> int:
        """Return the number of the manager of a block that has the secret of an offer; 0 where none has."""
        shown = (offer.secret or "").encode(errors="surrogatepass")
        for manager in self.by_block.get(offer.block, {}).values() if shown else ():
            # In constant time: the answer must not tell how much of a guess was right.
            if hmac.compare_digest(shown, (manager.secret or "").encode(errors="surrogatepass")):
                return manager.number
        return 0

    def add(self, manager: ManagerRecord) -> None:
        """Take in a manager that registered, with its capacity."""
        self.by_peer[manager.peer] = manager
        self.by_number[manager.number] = manager
        self.by_name[manager.offer.block, manager.offer.manager_id] = manager
        self.by_block.setdefault(manager.offer.block, {})[manager.number] = manager
        self.by_node.setdefault(manager.offer.node, {})[manager.number] = manager
        manager.barred = manager.offer.node in self.barred
        self.total_slots += manager.slots
        self.total_prefetch += manager.prefetch
        self._enrol(manager)
        self.settle(manager)

    def _enrol(self, manager: ManagerRecord) -> None:
        profile = self.profiles.setdefault(capacity_key(manager.capacity), CapacityClass(manager.capacity))
        if manager.capacity.memory_mb > profile.largest.memory_mb:
            profile.largest = manager.capacity
        profile.life_s = max(profile.life_s, manager.life_s)
        profile.managers[manager.number] = manager
        manager.profile = profile

    def move(self, manager: ManagerRecord, peer: bytes) -> None:
        """A manager came back over another connection."""
        self.by_peer.pop(manager.peer, None)
        manager.peer = peer
        self.by_peer[peer] = manager

    def remove(self, manager: ManagerRecord) -> None:
        """A manager is gone."""
        self.by_peer.pop(manager.peer, None)
        # A second removal must not lower the totals again.
        if self.by_number.pop(manager.number, None) is None:
            return
        self.by_name.pop((manager.offer.block, manager.offer.manager_id), None)
        for index, key in ((self.by_block, manager.offer.block), (self.by_node, manager.offer.node)):
            del index[key][manager.number]
            if not index[key]:
                del index[key]
        self.total_slots -= manager.slots
        self.total_prefetch -= manager.prefetch
        for order in (self.idle, self.prefetching, self.loaded, self.working):
            order.pop(manager.number, None)
        profile = manager.profile
        if profile is not None:
            profile.free.pop(manager.number, None)
            del profile.managers[manager.number]
            if not profile.managers:
                del self.profiles[capacity_key(manager.capacity)]

    def bar(self, nodes: frozenset[str]) -> list[ManagerRecord]:
        """Have the managers of these nodes, and of no others, get nothing; return those that are newly concerned."""
        changed = [manager for node in nodes ^ self.barred for manager in self.by_node.get(node, {}).values()]
        self.barred = nodes
        for manager in changed:
            manager.barred = manager.offer.node in nodes
            self.settle(manager)
        return [manager for manager in changed if manager.barred]

    def has_node_but(self, avoid: Collection[str]) -> bool:
        """Whether a node is connected that is none of these, and may take tasks."""
        return any(node not in avoid and node not in self.barred for node in self.by_node)

    def resize(self, manager: ManagerRecord, slots: int, prefetch: int) -> None:
        """A manager changed its capacity."""
        self.total_slots += slots - manager.slots
        self.total_prefetch += prefetch - manager.prefetch
        manager.slots, manager.prefetch = slots, prefetch
        self.settle(manager)

    def settle(self, manager: ManagerRecord) -> None:
        """Put a manager where it belongs after a change."""
        number, room, free = manager.number, manager.room, manager.free_slots
        if room > 0 and free > 0:
            # Not put in again: it would lose its turn, which ``rotate`` alone gives up.
            if number not in self.idle:
                self.idle[number] = manager
            self.prefetching.pop(number, None)
        else:
            self.idle.pop(number, None)
            if room > 0:
                if number not in self.prefetching:
                    self.prefetching[number] = manager
            else:
                self.prefetching.pop(number, None)
        # Only a change is worth the look-ups below: this runs once a message of results.
        offered = 0 if manager.closed else free
        if offered != manager.was_free:
            self._note_free(manager, offered)
        if manager.out or manager.special:
            self.working[number] = manager
        else:
            self.working.pop(number, None)
        if free < 0 and manager.cut_off_at is None:
            self.loaded[number] = manager
        else:
            self.loaded.pop(number, None)

    def _note_free(self, manager: ManagerRecord, free: int) -> None:
        # The scheduler looks at tasks that found no room only after there is more of it somewhere.
        if free > manager.was_free and free > 0:
            self.freed = True
        manager.was_free = free
        if manager.profile is not None:
            if free > 0:
                manager.profile.free[manager.number] = manager
            else:
                manager.profile.free.pop(manager.number, None)

    def rotate(self, manager: ManagerRecord) -> None:
        """Let others be served before this one."""
        for index in (self.idle, self.prefetching):
            if manager.number in index:
                index.move_to_end(manager.number)


REASON = "the job of its block is over, and the key of the block is revoked"


@dataclass(slots=True)
class _Leaving:
    manager: ManagerRecord
    look_at: float
    last: float


class RevokedBlocks:
    """Which blocks are over, and when to look whether their managers have left. Pure."""

    __slots__ = ("_leaving", "blocks")

    def __init__(self) -> None:
        self.blocks: set[str] = set()
        """Blocks whose keys are revoked."""
        self._leaving: dict[int, _Leaving] = {}

    def add(
        self,
        blocks: Iterable[str],
        managers: Iterable[ManagerRecord],
        deadline: float,
        last: Callable[[str], float],
    ) -> list[ManagerRecord]:
        """Note blocks; return those of the managers that belong to them.

        They have until the deadline to leave, and where they have tasks until ``last`` of their block.
        """
        fresh = set(blocks) - self.blocks
        self.blocks |= fresh
        found = [manager for manager in managers if manager.offer.block in fresh] if fresh else []
        for manager in found:
            self._leaving[manager.number] = _Leaving(manager, deadline, max(deadline, last(manager.offer.block)))
        return found

    def gone(self, manager: ManagerRecord) -> None:
        """A manager is not connected any more."""
        self._leaving.pop(manager.number, None)

    def overdue(self, now: float, again: float) -> list[ManagerRecord]:
        """Return managers that should have left; those that have tasks, and time left, are looked at again then."""
        found = []
        for one in self._leaving.values():
            if now >= one.look_at:
                if one.manager.outstanding and now < one.last:
                    one.look_at = min(again, one.last)
                else:
                    found.append(one.manager)
        return found

    def next_deadline(self) -> float | None:
        """Return when to look again."""
        if not self._leaving:  # asked each turn, and nearly always so
            return None
        return min((one.look_at for one in self._leaving.values()), default=None)
