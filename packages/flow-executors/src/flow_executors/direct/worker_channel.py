"""The script's ends of the direct channel to one worker of its own machine, and the tasks given over it."""

from __future__ import annotations

import fcntl
import os

from flow_executors.errors import BadMessage
from flow_executors.manager.worker_pool import Frame, FrameReader
from flow_executors.wire.direct_messages import DirectChannelOffer, WorkerLease, pack_claim
from flow_executors.worker.packets import LANE_ROOM, made_direct


class DirectWorkerChannel:
    """The direct channel to one worker.

    Attributes:
        peer: The address of its manager.
        rank: Its number there.
        pid: Its process.
        keys: The tasks that it was given over this direct channel and that have no outcome, with the time when.
        claimed: Whether its manager leaves it to the script.
        told: Those of the keys that the manager knows.
        usable: Whether tasks can be written; not any more once the worker seems dead.
    """

    __slots__ = ("_reader", "_results", "_tasks", "claimed", "keys", "peer", "pid", "rank", "told", "usable")

    def __init__(self, peer: bytes, rank: int, pid: int, tasks: int, results: int) -> None:
        self.peer = peer
        self.rank = rank
        self.pid = pid
        self.keys: dict[int, float] = {}
        self.claimed = False
        self.told: tuple[int, ...] = ()
        self.usable = True
        self._tasks = tasks
        self._results = results
        self._reader = FrameReader(results, LANE_ROOM)

    def fileno(self) -> int:
        """Return the descriptor that is readable when there is a result."""
        return self._results

    @property
    def free(self) -> bool:
        """Whether the worker surely has nothing to do, if it is claimed."""
        return self.usable and not self.keys

    @property
    def dead(self) -> bool:
        """Whether the worker has closed its end."""
        return self._reader.eof

    def write(self, key: int, record: bytes, now: float) -> bool:
        """Give the worker a task; False where it cannot be given any more."""
        try:
            os.write(self._tasks, made_direct(record))
        except OSError:
            self.usable = False
            return False
        self.keys[key] = now
        return True

    def read(self) -> list[Frame]:
        """Return the results that are there. Raises BadMessage: it is no worker of ours that writes there."""
        return self._reader.read()

    def read_all(self) -> list[Frame]:
        """Return the last results of a dead worker."""
        try:
            return self._reader.read_all()
        except BadMessage:
            return []

    def claim(self, now: float) -> bytes:
        """Return the CLAIM that states the claim and the tasks of now; notes that the manager knows them."""
        self.told = tuple(self.keys)
        age_s = now - min(self.keys.values()) if self.keys else 0.0
        return pack_claim(WorkerLease(self.rank, self.pid, self.claimed, self.told, age_s))

    def close(self) -> None:
        """Close the script's descriptors of both pipes; the worker goes on for its manager."""
        os.close(self._tasks)
        os.close(self._results)


def open_channel(peer: bytes, manager_pid: int, offer: DirectChannelOffer) -> DirectWorkerChannel | None:
    """Open the direct channel that a manager offers; None where that cannot be done from here."""
    ends: list[int] = []
    try:
        for number, inode, flags in (
            (offer.tasks, offer.tasks_inode, os.O_WRONLY),
            (offer.results, offer.results_inode, os.O_RDONLY),
        ):
            ends.append(os.open(f"/proc/{manager_pid}/fd/{number}", flags | os.O_NONBLOCK | os.O_CLOEXEC))
            if os.fstat(ends[-1]).st_ino != inode:
                raise FileNotFoundError(number)
        fcntl.fcntl(ends[0], fcntl.F_SETFL, fcntl.fcntl(ends[0], fcntl.F_GETFL) | os.O_DIRECT)  # each write a packet
    except OSError:  # too many files, or a worker that is dead already
        for end in ends:
            os.close(end)
        return None
    return DirectWorkerChannel(peer, offer.rank, offer.pid, *ends)
