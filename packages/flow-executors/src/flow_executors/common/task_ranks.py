"""Tasks of ranks (MPI): what one asks for, what a share of it takes on a node, and where its ranks are placed. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass

from flow_core.interfaces.call import Resources
from flow_executors.common.resources import Capacity, ResourceRequest
from flow_executors.wire.ranks import RankPlace, RankPlacement

__all__ = ["RankPlace", "RankPlacement", "RankRequest"]

_CRUMB = 1e-9  # sums of fractions are whole numbers only nearly


@dataclass(frozen=True, slots=True)
class RankRequest:
    """What a task of ranks asks for.

    Attributes:
        nodes: Nodes over which its ranks are spread evenly; None: they may be anywhere in one block.
        ranks_per_node: Most ranks on a node; 1 where ``nodes`` is None.
        ranks: All of them.
        cores_per_rank: Cores of each; None for one core, or one worker where workers share cores.
        gpus_per_rank: Accelerators of each.
        exclusive: Whether it has its nodes to itself.
        memory_mb: Memory on each node; 0 where not stated.
    """

    nodes: int | None
    ranks_per_node: int
    ranks: int
    cores_per_rank: float | None = None
    gpus_per_rank: float = 0.0
    exclusive: bool = False
    memory_mb: int = 0

    @classmethod
    def of(cls, asked: Resources) -> RankRequest | None:
        """Return what a task asks for as a task of ranks; None where it is none."""
        if asked.ranks is None:
            return None
        anywhere = asked.ranks > asked.nodes * asked.ranks_per_node
        return cls(
            None if anywhere else asked.nodes,
            asked.ranks_per_node,
            asked.ranks,
            asked.cores_per_rank,
            asked.gpus_per_rank or 0.0,
            bool(asked.exclusive),
            asked.memory_mb,
        )

    def shares(self) -> tuple[int, ...]:
        """Return the ranks of each node, most first; nothing where they may be anywhere."""
        if self.nodes is None:
            return ()
        each, more = divmod(self.ranks, self.nodes)
        return (each + 1,) * more + (each,) * (self.nodes - more)

    def slots(self, ranks: int, capacity: Capacity) -> int:
        """Return how many workers so many ranks stand for on a node like this."""
        if self.exclusive:
            return max(1, capacity.slots)
        return max(1, math.ceil(ranks * self._slots_of_one(capacity) - _CRUMB))

    def most_ranks(self, slots: int, gpus: float, capacity: Capacity) -> int:
        """Return how many ranks so many free workers and devices of a node have room for."""
        if self.exclusive:
            slots = capacity.slots if slots >= capacity.slots else 0
        most = math.floor(slots / self._slots_of_one(capacity) + _CRUMB)
        if self.gpus_per_rank:
            most = min(most, math.floor(gpus / self.gpus_per_rank + _CRUMB))
        return max(0, most)

    def demand(self, ranks: int, capacity: Capacity) -> ResourceRequest:
        """Return what so many ranks take on a node like this."""
        slots = self.slots(ranks, capacity)
        gpus = ranks * self.gpus_per_rank
        memory_mb = self.memory_mb or capacity.mem_per_worker_mb * slots
        # Devices are given as fractions of one, or whole.
        return ResourceRequest(slots, memory_mb, gpus if gpus <= 1 else float(math.ceil(gpus - _CRUMB)))

    def unsatisfiable_reason(self, capacity: Capacity) -> str:
        """Return why a node like this can never take its share; an empty string if it can."""
        ranks = max(self.shares(), default=1)
        demand = self.demand(ranks, capacity)
        what = f"{ranks} rank{'s' if ranks > 1 else ''} on a node"
        room = math.floor(capacity.slots / self._slots_of_one(capacity) + _CRUMB)
        if room < ranks:
            return f"it asks for {what}, and the {capacity.slots} workers of a node have room for {room}"
        if demand.gpus > len(capacity.devices):
            return f"it asks for {demand.gpus:g} GPUs for {what}, a node has {len(capacity.devices)}"
        if capacity.memory_mb and demand.memory_mb > capacity.memory_mb:
            return f"it asks for {demand.memory_mb} MB of memory on each node, one has {capacity.memory_mb}"
        return ""

    def _slots_of_one(self, capacity: Capacity) -> float:
        """Return the part of a worker that a rank takes. One core is at most one worker, as for all tasks."""
        cores = 1.0 if self.cores_per_rank is None else self.cores_per_rank
        slots = cores / capacity.cores_per_worker
        return min(1.0, slots) if cores <= 1.0 else slots
