"""The managers that are connected, and which of them has room. Every pick is O(1): two ordered sets, no scan."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field

from flow_executors.manager.demand import Capacity, Demand
from flow_executors.wire.frames import Registration

_KNOWN_LIMIT = 16384


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
        reserved_for: Class for which it is kept free.
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
    reserved_for: int | None = None
    cut_off_at: float | None = None
    idle_since: float | None = None

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
        if self.closed or demand.slots > self.free_slots:
            return False
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

    def drop(self, keys: Iterable[int]) -> int:
        """Tasks are no longer here; return how many were."""
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

    __slots__ = ("by_number", "by_peer", "idle", "loaded", "prefetching", "total_prefetch", "total_slots", "working")

    def __init__(self) -> None:
        self.by_peer: dict[bytes, Manager] = {}
        self.by_number: dict[int, Manager] = {}
        self.idle: OrderedDict[int, Manager] = OrderedDict()
        self.prefetching: OrderedDict[int, Manager] = OrderedDict()
        self.loaded: OrderedDict[int, Manager] = OrderedDict()
        self.working: dict[int, Manager] = {}
        self.total_slots = 0
        self.total_prefetch = 0

    def add(self, manager: Manager) -> None:
        """A manager registered."""
        self.by_peer[manager.peer] = manager
        self.by_number[manager.number] = manager
        self.total_slots += manager.slots
        self.total_prefetch += manager.prefetch
        self.settle(manager)

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

    def resize(self, manager: Manager, slots: int, prefetch: int) -> None:
        """A manager changed its capacity."""
        self.total_slots += slots - manager.slots
        self.total_prefetch += prefetch - manager.prefetch
        manager.slots, manager.prefetch = slots, prefetch
        self.settle(manager)

    def settle(self, manager: Manager) -> None:
        """Put a manager where it belongs after a change."""
        number, room = manager.number, manager.room
        if room > 0 and manager.free_slots > 0:
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
        if manager.outstanding:
            self.working[number] = manager
        else:
            self.working.pop(number, None)
        if manager.backlog and manager.cut_off_at is None:
            self.loaded[number] = manager
        else:
            self.loaded.pop(number, None)

    def rotate(self, manager: Manager) -> None:
        """Let others be served before this one."""
        for index in (self.idle, self.prefetching):
            if manager.number in index:
                index.move_to_end(manager.number)
