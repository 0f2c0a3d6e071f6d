"""Resources that tasks ask for and that a node has: pure arithmetic, by which managers pack tasks."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from flow_core.interfaces.call import Resources, TaskSpec

_WHOLE = 1.0  # one core, or one device: a share of more is of several
_CRUMB = 1e-9  # fractions of devices add up to one only nearly


@dataclass(frozen=True, slots=True)
class Capacity:
    """What a node brings.

    Attributes:
        slots: Workers.
        cores_per_worker: Cores that one slot stands for.
        memory_mb: Memory in MiB; 0 where it is not known.
        devices: Names of its accelerators, each once.
        mem_per_worker_mb: Memory that a task of the default class is taken to use; 0 for none.
    """

    slots: int
    cores_per_worker: float = 1.0
    memory_mb: int = 0
    devices: tuple[str, ...] = ()
    mem_per_worker_mb: int = 0


@dataclass(frozen=True, slots=True)
class ResourceRequest:
    """What one task of a class takes while it runs: slots, memory in MiB, devices (a fraction, or a whole number).

    ``priority`` orders classes; ``walltime_s`` is the task's own limit; ``need_s`` is what its block must have left;
    ``warn_s`` is how long before the end of that it is told of it, None if not.
    """

    slots: int = 1
    memory_mb: int = 0
    gpus: float = 0.0
    priority: int = 0
    walltime_s: float | None = None
    need_s: float = 0.0
    warn_s: float | None = None

    @classmethod
    def of(cls, spec: TaskSpec, capacity: Capacity) -> ResourceRequest:
        """Return what a task of this class takes on a node like this."""
        asked = spec.resources
        slots = _slots(asked.cores, capacity)
        memory_mb = asked.memory_mb or capacity.mem_per_worker_mb * slots
        return cls(slots, memory_mb, asked.gpus, spec.priority, spec.walltime_s, spec.needed_s, spec.warn_before_end_s)


def _slots(cores: float, capacity: Capacity) -> int:
    """Return how many workers so many cores stand for. One core is what a task has that asks for none: one worker."""
    if cores <= _WHOLE:
        return 1
    return max(1, math.ceil(cores / capacity.cores_per_worker - _CRUMB))


def unsatisfiable_reason(asked: Resources, capacity: Capacity) -> str:
    """Return why such a task can never run on a node like this; an empty string if it can."""
    cores = capacity.slots * capacity.cores_per_worker
    if _slots(asked.cores, capacity) > capacity.slots:
        return f"it asks for {asked.cores:g} cores, the node's workers have {cores:g}"
    if capacity.memory_mb and asked.memory_mb > capacity.memory_mb:
        return f"it asks for {asked.memory_mb} MB of memory, the node has {capacity.memory_mb}"
    if asked.gpus > len(capacity.devices):
        return f"it asks for {asked.gpus:g} GPUs, the node has {len(capacity.devices)} (available_accelerators)"
    if asked.gpus > _WHOLE and asked.gpus != int(asked.gpus):
        return f"it asks for {asked.gpus:g} GPUs: above one, only whole ones can be given"
    if asked.nodes > 1:
        return f"it asks for {asked.nodes} nodes, and runs on one here"
    for name, amount in asked.named:
        if amount:
            return f"it asks for {amount:g} of {name!r}, the node offers none"
    return ""


@dataclass(slots=True)
class ResourceAllocation:
    """What of a node is taken now."""

    capacity: Capacity
    slots: int = 0
    memory_mb: int = 0
    devices: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.devices = dict.fromkeys(self.capacity.devices, 0.0)

    def fits(self, demand: ResourceRequest) -> bool:
        """Return whether a task could start now."""
        capacity = self.capacity
        if self.slots + demand.slots > capacity.slots:
            return False
        if capacity.memory_mb and self.memory_mb + demand.memory_mb > capacity.memory_mb:
            return False
        return demand.gpus == 0 or bool(self._choose(demand.gpus))

    def take(self, demand: ResourceRequest) -> tuple[str, ...]:
        """Book a task that fits; return the devices it may use."""
        self.slots += demand.slots
        self.memory_mb += demand.memory_mb
        chosen = self._choose(demand.gpus)
        for device in chosen:
            self.devices[device] += min(demand.gpus, _WHOLE)
        return chosen

    def take_what_there_is(self, demand: ResourceRequest) -> tuple[str, ...]:
        """Book what others have counted as free; where shares of devices are spread too thin, the emptiest are used."""
        self.slots += demand.slots
        self.memory_mb += demand.memory_mb
        count = min(math.ceil(demand.gpus), len(self.devices))
        chosen = self._choose(demand.gpus) or tuple(sorted(self.devices, key=lambda name: self.devices[name])[:count])
        for device in chosen:
            self.devices[device] += min(demand.gpus, _WHOLE)
        return chosen

    def give_back(self, demand: ResourceRequest, devices: tuple[str, ...]) -> None:
        """Free what ``take`` has booked for a task, with the devices that it returned."""
        self.slots -= demand.slots
        self.memory_mb -= demand.memory_mb
        for device in devices:
            self.devices[device] = max(0.0, self.devices[device] - min(demand.gpus, _WHOLE))

    def _choose(self, gpus: float) -> tuple[str, ...]:
        """Devices for so many: fractions go to the fullest that has room, so that whole ones stay free."""
        if gpus <= 0:
            return ()
        share = min(gpus, _WHOLE)
        open_ = [name for name, used in self.devices.items() if used + share <= _WHOLE + _CRUMB]
        open_.sort(key=lambda name: -self.devices[name])
        count = max(1, int(gpus))
        return tuple(open_[:count]) if len(open_) >= count else ()
