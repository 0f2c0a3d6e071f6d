"""The managers that are connected, as the client knows them, and where their workers are. One thread writes."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

from flow_core.interfaces.outcome import Place
from flow_executors.wire.frames import Registration, unpack_notice
from flow_executors.wire.kinds import Buffer


class Directory:
    """Managers by number, and one shared Place a worker."""

    __slots__ = ("_boot_id", "_nowhere", "_places", "_same_clock", "label", "managers")

    def __init__(self, label: str) -> None:
        self.label = label
        self._nowhere = Place(label)
        self._places: dict[tuple[int, int], Place] = {}
        self.managers: dict[int, Registration] = {}
        self._boot_id = _boot_id()
        self._same_clock: set[int] = set()

    def add(self, number: int, offer: Registration) -> bool:
        """A manager registered; True if it was not known under that number."""
        fresh = number not in self.managers
        if self._boot_id and offer.host_id.startswith(self._boot_id):
            self._same_clock.add(number)
        self.managers[number] = offer
        for worker, _ in enumerate(offer.worker_pids):
            self._places.pop((number, worker), None)
        return fresh

    def replaced(self, number: int, worker: int, pid: int) -> None:
        """Another process has taken the place of a worker."""
        offer = self.managers.get(number)
        if offer is not None and worker < offer.workers:
            pids = [*offer.worker_pids, *[0] * (offer.workers - len(offer.worker_pids))]
            pids[worker] = pid
            self.managers[number] = replace(offer, worker_pids=tuple(pids))
            self._places.pop((number, worker), None)

    def remove(self, number: int) -> Registration | None:
        """A manager left."""
        offer = self.managers.pop(number, None)
        self._same_clock.discard(number)
        for key in [key for key in self._places if key[0] == number]:
            del self._places[key]
        return offer

    def notice(self, message: Buffer, logger: logging.Logger) -> None:
        """Write what a manager wants to have in the log of the run.

        Raises:
            BadMessage: it is no NOTICE.
        """
        number, text = unpack_notice(message)
        offer = self.managers.get(number)
        if offer is not None:
            logger.warning("manager %s of block %s: %s", offer.manager_id, offer.block, text)

    def offset_ns(self, number: int, measured_ns: int) -> int:
        """Return what to add to a manager's times: as it measured, nothing where it has this machine's clock."""
        return 0 if number in self._same_clock else measured_ns

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


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
