"""The managers that are connected, and which of them has room. Every pick is O(1): two ordered sets, no scan."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from flow_executors.manager.demand import Capacity, Demand
from flow_executors.wire.frames import Registration

_KNOWN_LIMIT = 16384

ProfileKey = tuple[int, float, int, int]


class Profile:
    """Managers that are alike: as many workers, cores and devices, and about as much memory.

    Attributes:
        largest: The capacity of the one with the most memory.
        life_s: The longest time that a block had left when one of them first came; infinite where not known.
        managers: All of them.
        free: Those with a slot that has nothing to do; who was looked at last stands at the end.
    """

    __slots__ = ("free", "largest", "life_s", "managers")

    def __init__(self, capacity: Capacity) -> None:
        self.largest = capacity
        self.life_s = 0.0
        self.managers: OrderedDict[int, Manager] = OrderedDict()
        self.free: OrderedDict[int, Manager] = OrderedDict()


def profile_key(capacity: Capacity) -> ProfileKey:
    """Return what managers that are alike share; memory by steps of about 10%."""
    memory = capacity.memory_mb
    step = max(0, memory.bit_length() - 4)
    return capacity.slots, capacity.cores_per_worker, len(capacity.devices), memory >> step << step


@dataclass(slots=True, eq=False)
class Manager:
    """One connected manager: what it offers and what it has.

    Attributes:
        peer: Its address on the socket; a new one after each reconnection.
        number: Its number in results.
        offer: Its registration.
        capacity: The offer as slots, memory and devices.
        slots: Tasks of the default class that can run at once, as it said last.
        prefetch: Tasks of the default class that it takes beyond that, as it said last.
        out: Keys of the default class that it has.
        special: Keys of other classes that it has, with what each takes.
        known: Digests of blobs that it was sent.
        classes: Class ids that it was told of.
        received: Number of its last result message.
        acked: Number of the last result message acknowledged.
        held: It is to take nothing more.
        draining: It was asked to drain.
        recalling: A RECALL is out.
        reserved_for: Number of the shape for which it is kept free, and the rank of the task that waits for it.
        life_s: Time that its block had left when it first came; infinite where not known.
        started: When tasks that it runs for longer were started, as far as it told (ns UTC).
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
    special: dict[int, Demand] = field(default_factory=dict)
    special_slots: int = 0
    special_memory_mb: int = 0
    special_gpus: float = 0.0
    known: set[bytes] = field(default_factory=set)
    classes: set[int] = field(default_factory=set)
    received: int = 0
    acked: int = 0
    held: bool = False
    draining: bool = False
    recalling: bool = False
    reserved_for: tuple[int, tuple[float, int]] | None = None
    cut_off_at: float | None = None
    idle_since: float | None = None
    life_s: float = math.inf
    profile: Profile | None = None
    was_free: int = 0
    started: dict[int, int] = field(default_factory=dict)

    @property
    def free_slots(self) -> int:
        """Slots that have nothing to do."""
        return self.slots - self.special_slots - len(self.out)

    @property
    def room(self) -> int:
        """Tasks of the default class that it can take now, prefetched ones included."""
        if self.closed or self.reserved_for is not None or self.special_slots >= self.slots:
            return 0
        return self.free_slots + self.prefetch

    @property
    def closed(self) -> bool:
        """Whether it takes nothing at present."""
        return self.held or self.draining or self.cut_off_at is not None

    @property
    def backlog(self) -> int:
        """Tasks that it has and cannot have started yet."""
        return max(0, len(self.out) + self.special_slots - self.slots)

    @property
    def outstanding(self) -> int:
        """Tasks that it has."""
        return len(self.out) + len(self.special)

    def fits_now(self, demand: Demand) -> bool:
        """Whether a task of that demand could start at once."""
        return demand.slots <= self.free_slots and not self.closed and self.has_the_rest(demand)

    def has_the_rest(self, demand: Demand) -> bool:
        """Whether memory and devices for such a task are free."""
        memory = self.capacity.memory_mb
        if memory and self.special_memory_mb + demand.memory_mb > memory:
            return False
        return self.special_gpus + demand.gpus <= len(self.capacity.devices) + 1e-9

    def take_special(self, key: int, demand: Demand) -> None:
        """Book a task of another class."""
        self.special[key] = demand
        self.special_slots += demand.slots
        self.special_memory_mb += demand.memory_mb
        self.special_gpus += demand.gpus

    def has(self, key: int) -> bool:
        """Whether a task is here."""
        return key in self.out or key in self.special

    def drop(self, keys: Sequence[int] | set[int]) -> int:
        """Tasks are no longer here; return how many were."""
        if self.started:
            for key in keys:
                self.started.pop(key, None)
        before = len(self.out)
        self.out.difference_update(keys)
        count = before - len(self.out)
        if self.special:
            count += sum(self._drop_special(key) for key in keys)
        return count

    def _drop_special(self, key: int) -> int:
        demand = self.special.pop(key, None)
        if demand is None:
            return 0
        self.special_slots -= demand.slots
        self.special_memory_mb -= demand.memory_mb
        self.special_gpus -= demand.gpus
        return 1

    def learn(self, digests: Iterable[bytes]) -> None:
        """Note blobs that it was sent; forgets all when there are too many (then some are sent twice)."""
        if len(self.known) > _KNOWN_LIMIT:
            self.known.clear()
        self.known.update(digests)


class Pool:
    """All managers, found by address, and in the order in which they are to be given tasks."""

    __slots__ = (
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
        self.by_peer: dict[bytes, Manager] = {}
        self.by_number: dict[int, Manager] = {}
        self.idle: OrderedDict[int, Manager] = OrderedDict()
        self.prefetching: OrderedDict[int, Manager] = OrderedDict()
        self.loaded: OrderedDict[int, Manager] = OrderedDict()
        self.working: dict[int, Manager] = {}
        self.profiles: dict[ProfileKey, Profile] = {}
        self.freed = False
        """Some manager has more free slots than it had; for others to set to False."""
        self.total_slots = 0
        self.total_prefetch = 0

    def add(self, manager: Manager) -> None:
        """A manager registered."""
        self.by_peer[manager.peer] = manager
        self.by_number[manager.number] = manager
        self.total_slots += manager.slots
        self.total_prefetch += manager.prefetch
        self._enrol(manager)
        self.settle(manager)

    def _enrol(self, manager: Manager) -> None:
        profile = self.profiles.setdefault(profile_key(manager.capacity), Profile(manager.capacity))
        if manager.capacity.memory_mb > profile.largest.memory_mb:
            profile.largest = manager.capacity
        profile.life_s = max(profile.life_s, manager.life_s)
        profile.managers[manager.number] = manager
        manager.profile = profile

    def move(self, manager: Manager, peer: bytes) -> None:
        """A manager came back over another connection."""
        self.by_peer.pop(manager.peer, None)
        manager.peer = peer
        self.by_peer[peer] = manager

    def remove(self, manager: Manager) -> None:
        """A manager is gone."""
        self.by_peer.pop(manager.peer, None)
        if self.by_number.pop(manager.number, None) is None:
            return
        self.total_slots -= manager.slots
        self.total_prefetch -= manager.prefetch
        for index in (self.idle, self.prefetching, self.loaded, self.working):
            index.pop(manager.number, None)
        profile = manager.profile
        if profile is not None:
            profile.free.pop(manager.number, None)
            del profile.managers[manager.number]
            if not profile.managers:
                del self.profiles[profile_key(manager.capacity)]

    def resize(self, manager: Manager, slots: int, prefetch: int) -> None:
        """A manager changed its capacity."""
        self.total_slots += slots - manager.slots
        self.total_prefetch += prefetch - manager.prefetch
        manager.slots, manager.prefetch = slots, prefetch
        self.settle(manager)

    def settle(self, manager: Manager) -> None:
        """Put a manager where it belongs after a change."""
        number, room, free = manager.number, manager.room, manager.free_slots
        if room > 0 and free > 0:
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

    def _note_free(self, manager: Manager, free: int) -> None:
        if free > manager.was_free and free > 0:
            self.freed = True
        manager.was_free = free
        if manager.profile is not None:
            if free > 0:
                manager.profile.free[manager.number] = manager
            else:
                manager.profile.free.pop(manager.number, None)

    def rotate(self, manager: Manager) -> None:
        """Let others be served before this one."""
        for index in (self.idle, self.prefetching):
            if manager.number in index:
                index.move_to_end(manager.number)
