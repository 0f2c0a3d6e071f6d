"""Managers that are kept free of less urgent tasks for one that needs more room than is ever free. Pure."""

from __future__ import annotations

from flow_executors.common.resources import ResourceRequest
from flow_executors.interchange.managers import ManagerRecord
from flow_executors.interchange.pending import Rank, RequestClass
from flow_executors.interchange.state import InterchangeState
from flow_executors.wire.messages import ALL


class Reservations:
    """Which managers are kept free, and for which shapes.

    Attributes:
        shapes: Those for which some are kept, by identity.
    """

    __slots__ = ("_shared", "shapes")

    def __init__(self, shared: InterchangeState) -> None:
        self._shared = shared
        self.shapes: dict[int, RequestClass] = {}

    def keep(self, manager: ManagerRecord, shape: RequestClass, rank: Rank, demand: ResourceRequest) -> None:
        """Keep so much of a manager free for a shape whose most urgent task has a rank."""
        self.open(manager)
        manager.kept = demand
        manager.reserved_for = (id(shape), rank)
        shape.reserved.add(manager.number)
        self.shapes[id(shape)] = shape
        # What it holds in advance would take each slot that becomes free.
        if manager.backlog:
            self._shared.recall(manager, ALL)
        self._shared.pool.settle(manager)

    def open(self, manager: ManagerRecord) -> None:
        """Keep a manager free no longer."""
        if manager.reserved_for is None:
            return
        shape = self.shapes.get(manager.reserved_for[0])
        if shape is not None:
            shape.reserved.discard(manager.number)
        manager.reserved_for = manager.kept = None
        self._shared.pool.settle(manager)

    def release(self, shape: RequestClass) -> None:
        """Keep nothing free for a shape any more."""
        by_number = self._shared.pool.by_number
        for number in [*shape.reserved]:
            if number in by_number:
                self.open(by_number[number])
        shape.reserved.clear()
        self.shapes.pop(id(shape), None)

    def release_idle(self) -> bool:
        """Give back what is kept for shapes of which nothing waits any more; return whether there were such."""
        over = [shape for shape in self.shapes.values() if shape.first() is None]
        for shape in over:
            self.release(shape)
        return bool(over)
