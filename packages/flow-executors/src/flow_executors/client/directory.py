"""The managers that are connected, as the client knows them, and where their workers are. One thread writes."""

from __future__ import annotations

from flow_core.interfaces.outcome import Place
from flow_executors.wire.frames import Registration


class Directory:
    """Managers by number, and one shared Place a worker."""

    __slots__ = ("_nowhere", "_places", "label", "managers")

    def __init__(self, label: str) -> None:
        self.label = label
        self._nowhere = Place(label)
        self._places: dict[tuple[int, int], Place] = {}
        self.managers: dict[int, Registration] = {}

    def add(self, number: int, offer: Registration) -> bool:
        """A manager registered; True if it was not known under that number."""
        fresh = number not in self.managers
        self.managers[number] = offer
        for worker, _ in enumerate(offer.worker_pids):
            self._places.pop((number, worker), None)
        return fresh

    def remove(self, number: int) -> Registration | None:
        """A manager left."""
        offer = self.managers.pop(number, None)
        for key in [key for key in self._places if key[0] == number]:
            del self._places[key]
        return offer

    def place(self, number: int, worker: int) -> Place:
        """Return where a worker is; the executor alone where nothing more is known."""
        found = self._places.get((number, worker))
        if found is None:
            offer = self.managers.get(number)
            if offer is None:
                return self._nowhere
            pid = offer.worker_pids[worker] if worker < len(offer.worker_pids) else 0
            found = Place(self.label, offer.block, offer.node, offer.manager_id, worker, pid)
            self._places[number, worker] = found
        return found

    def blocks(self) -> list[str]:
        """Return the names of the blocks that have a manager connected."""
        return sorted({offer.block for offer in list(self.managers.values())})
