"""Direct channels between a script and single workers of its own machine, beside their manager.

- CHANNEL_OFFER: ``u8 kind, 3 x 0, u32 manager number, u32 rank, u32 pid, u32 tasks, u32 results, u64 tasks' inode,
  u64 results' inode``: the descriptors of the manager behind which a worker's pipes are to be found. Whoever opens them
  under ``/proc`` compares the inodes: no two pipes of a machine have the same.
- CLAIM: ``u8 kind, u8 claimed, 2 x 0, u32 rank, u32 pid, u32 age in ms, u32 n, n x u64 keys``: whether the script gives
  tasks to that worker itself from now on, and which it has given it, the oldest so long ago. What a CLAIM says takes
  the place of what the one before said.
- TAKEN: ``u8 kind, 3 x 0, u32 manager number, u32 rank, u32 pid, u32 n, n x u64 keys``: the manager has read these
  tasks back from the worker's pipe, and sees to them from now on. Answered by a CLAIM.
- WORKER_DIED: ``u8 kind, u8 verdict, 2 x 0, u32 manager number, u32 rank, u32 pid``, then a payload as in RESULTS: a
  worker with a direct channel is dead. Verdict and payload are for all that the script has given it of which the
  manager was not told.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from flow_core.interfaces.outcome import Verdict
from flow_executors.errors import BadMessage
from flow_executors.wire.kinds import Buffer, Kind, exact, expect

_CHANNEL_OFFER = struct.Struct("<BxxxIIIIIQQ")
_CLAIM = struct.Struct("<BBxxIIII")
_TAKEN = struct.Struct("<BxxxIIII")
_WORKER_DIED = struct.Struct("<BBxxIII")
# Milliseconds; the largest age that the field holds, some 49 days.
_MOST_MS = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class DirectChannelOffer:
    """A worker that can be given tasks directly.

    Attributes:
        manager: Number of its manager.
        rank: Its own number there.
        pid: Its process.
        tasks: Descriptor of the manager: the end of the pipe where tasks are written.
        results: Descriptor of the manager: the end of the direct channel's own pipe where results are read.
        tasks_inode: Which pipe the first is.
        results_inode: Which pipe the second is.
    """

    manager: int
    rank: int
    pid: int
    tasks: int
    results: int
    tasks_inode: int
    results_inode: int


@dataclass(frozen=True, slots=True)
class WorkerLease:
    """The script's claim on a worker; ``age_s`` is how long it has had the oldest of the keys."""

    rank: int
    pid: int
    claimed: bool
    keys: tuple[int, ...] = ()
    age_s: float = 0.0


@dataclass(frozen=True, slots=True)
class TakenBack:
    """Tasks of the script's that a manager has read back from a worker's pipe."""

    manager: int
    rank: int
    pid: int
    keys: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class WorkerDied:
    """The end of a worker with a direct channel; see WORKER_DIED."""

    manager: int
    rank: int
    pid: int
    verdict: Verdict
    payload: bytes


def pack_channel_offer(offer: DirectChannelOffer) -> bytes:
    """Return CHANNEL_OFFER, by which a manager offers a direct channel to one of its workers."""
    return _CHANNEL_OFFER.pack(
        Kind.CHANNEL_OFFER,
        offer.manager,
        offer.rank,
        offer.pid,
        offer.tasks,
        offer.results,
        offer.tasks_inode,
        offer.results_inode,
    )


def unpack_channel_offer(message: Buffer) -> DirectChannelOffer:
    """Parse CHANNEL_OFFER.

    Raises:
        BadMessage: it is none.
    """
    view = expect(message, _CHANNEL_OFFER.size, Kind.CHANNEL_OFFER)
    exact(view, _CHANNEL_OFFER.size, Kind.CHANNEL_OFFER)
    return DirectChannelOffer(*_CHANNEL_OFFER.unpack_from(view)[1:])


def pack_claim(claim: WorkerLease) -> bytes:
    """Return CLAIM, which takes the place of the one before for that worker."""
    keys, age_ms = claim.keys, min(_MOST_MS, int(claim.age_s * 1000))
    return _CLAIM.pack(Kind.CLAIM, claim.claimed, claim.rank, claim.pid, age_ms, len(keys)) + _packed(keys)


def unpack_claim(message: Buffer) -> WorkerLease:
    """Parse CLAIM.

    Raises:
        BadMessage: its length is wrong.
    """
    view = expect(message, _CLAIM.size, Kind.CLAIM)
    _, claimed, rank, pid, age_ms, n = _CLAIM.unpack_from(view)
    return WorkerLease(rank, pid, bool(claimed), _keys(view, _CLAIM.size, n, Kind.CLAIM), age_ms / 1000)


def pack_taken(taken: TakenBack) -> bytes:
    """Return TAKEN: tasks of the script's that are the manager's now."""
    return _TAKEN.pack(Kind.TAKEN, taken.manager, taken.rank, taken.pid, len(taken.keys)) + _packed(taken.keys)


def unpack_taken(message: Buffer) -> TakenBack:
    """Parse TAKEN.

    Raises:
        BadMessage: its length is wrong.
    """
    view = expect(message, _TAKEN.size, Kind.TAKEN)
    _, manager, rank, pid, n = _TAKEN.unpack_from(view)
    return TakenBack(manager, rank, pid, _keys(view, _TAKEN.size, n, Kind.TAKEN))


def pack_worker_died(worker_loss: WorkerDied) -> bytes:
    """Return WORKER_DIED: a worker with a direct channel is dead."""
    return (
        _WORKER_DIED.pack(Kind.WORKER_DIED, worker_loss.verdict, worker_loss.manager, worker_loss.rank, worker_loss.pid)
        + worker_loss.payload
    )


def unpack_worker_died(message: Buffer) -> WorkerDied:
    """Parse WORKER_DIED.

    Raises:
        BadMessage: it is too short, or the verdict unknown.
    """
    view = expect(message, _WORKER_DIED.size, Kind.WORKER_DIED)
    _, verdict, manager, rank, pid = _WORKER_DIED.unpack_from(view)
    if verdict not in set(Verdict):
        raise BadMessage(f"unknown verdict {verdict} of WORKER_DIED")
    return WorkerDied(manager, rank, pid, Verdict(verdict), bytes(view[_WORKER_DIED.size :]))


def _packed(keys: tuple[int, ...]) -> bytes:
    return struct.pack(f"<{len(keys)}Q", *keys)


def _keys(view: memoryview, at: int, count: int, kind: Kind) -> tuple[int, ...]:
    exact(view, at + 8 * count, kind)
    keys: tuple[int, ...] = struct.unpack_from(f"<{count}Q", view, at)
    return keys
