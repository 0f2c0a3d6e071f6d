"""The managers that are connected, as the client knows them, and where their workers are. One thread writes."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from flow_core.interfaces.outcome import Place
from flow_executors.client.last_words import LastWords
from flow_executors.client.near_words import JobWords, NearWords
from flow_executors.client.node_keeper import NodeKeeper
from flow_executors.wire.kinds import Buffer
from flow_executors.wire.messages import Registration, unpack_notice

_PLAIN = re.compile(r"[\w-][\w.-]{0,200}")


class ManagerDirectory:
    """Managers by number, and one shared Place a worker."""

    __slots__ = (
        "_boot_id",
        "_logs",
        "_near",
        "_nowhere",
        "_offsets",
        "_places",
        "_same_clock",
        "ending",
        "job_words",
        "label",
        "managers",
        "most_memory_mb",
        "watch",
        "words",
    )

    def __init__(self, label: str, logs: Path) -> None:
        self.label = label
        self._logs = logs
        self.words = LastWords(self.log_place)
        self._nowhere = Place(label)
        self._places: dict[tuple[int, int], Place] = {}
        self.managers: dict[int, Registration] = {}
        self.most_memory_mb = 0
        """Memory of the largest node that was ever seen; 0 while none was."""
        self.watch: NodeKeeper | None = None
        """What is told of nodes and of what tasks came to there; None: nobody."""
        self._boot_id = _boot_id()
        self._same_clock: set[int] = set()
        self.job_words: JobWords | None = None
        self.ending = False
        """Whether the executor ends: managers that leave then do so by its order, and have no last words to be read."""
        self._near: tuple[str, NearWords] | None = None
        self._offsets: dict[int, int] = {}

    def add(self, number: int, offer: Registration) -> bool:
        """A manager registered; True if it was not known under that number."""
        fresh = number not in self.managers
        if self._boot_id and offer.host_id.startswith(self._boot_id):
            self._same_clock.add(number)
        elif offer.time_ns:
            # Later than it was by what the message took: good enough until the manager has measured it.
            self._offsets.setdefault(number, time.time_ns() - offer.time_ns)
        self.managers[number] = offer
        self.most_memory_mb = max(self.most_memory_mb, offer.memory_mb)
        if fresh and self.watch is not None:
            self.watch.joined(offer.node)
        for worker, _ in enumerate(offer.worker_pids):
            # The pids may be others than before: places are made anew at the next result.
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
        """Forget a manager and the places of its workers; return its registration, None where it is not known."""
        offer = self.managers.pop(number, None)
        self._same_clock.discard(number)
        self._offsets.pop(number, None)
        if offer is not None and self.watch is not None:
            self.watch.left(offer.node)
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
        if number in self._same_clock:
            return 0
        self._offsets[number] = measured_ns
        return measured_ns

    def clock_offset_ns(self, number: int) -> int:
        """Return what to add to a manager's times where a message states no offset of its own."""
        return self._offsets.get(number, 0)

    def place(self, number: int, worker: int) -> Place:
        """Return where a worker is; the executor alone where nothing more is known."""
        found = self._places.get((number, worker))
        if found is None:
            offer = self.managers.get(number)
            if offer is None:
                return self._nowhere
            pid = offer.worker_pids[worker] if worker < len(offer.worker_pids) else 0
            found = Place(self.label, offer.block, offer.node_of(worker), offer.manager_id, worker, pid)
            self._places[number, worker] = found
        return found

    def apart(self, blocks: Collection[str] | None = None) -> list[int]:
        """Return the numbers of managers whose nodes do not see the run's directory, of some blocks or of all."""
        found = list(self.managers.items())
        return [number for number, one in found if one.is_apart and (blocks is None or one.block in blocks)]

    def log_place(self, number: int) -> Path | None:
        """Return where in the executor's directory the logs of such a manager are to lie; None of another one."""
        offer = self.managers.get(number)
        return None if offer is None or not offer.is_apart else self._log_place(number, offer)

    def _log_place(self, number: int, offer: Registration) -> Path:
        # A manager names itself, and its block: what is no plain name is not part of a path.
        names = [f"block-{offer.block}", offer.manager_id]
        plain = [name if _PLAIN.fullmatch(name) else f"manager-{number}" for name in names]
        return self._logs / plain[0] / plain[1]

    def near_words(self, number: int) -> NearWords | None:
        """Return what reads the last words of a manager of this machine that writes its own log; else None."""
        offer = self.managers.get(number)
        if offer is None or offer.is_apart or number not in self._same_clock or self.ending:
            return None
        if self._near is None or self._near[0] != offer.identity:
            log = self._log_place(number, offer) / "manager.log"
            self._near = offer.identity, NearWords(log, offer.pid, offer.block, self.job_words)
        return self._near[1]

    def of(self, identity: str) -> set[int]:
        """Return the numbers under which one manager is known."""
        return {number for number, offer in self.managers.items() if offer.identity == identity}

    def blocks(self) -> list[str]:
        """Return the names of the blocks that have a manager connected."""
        return sorted({offer.block for offer in list(self.managers.values())})


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
