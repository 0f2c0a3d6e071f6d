"""Results of a manager: gathered, sent in batches, kept until acknowledged; and those that it reports itself. Pure.

The manager reports tasks whose workers died, and tasks that it gives back.
"""

from __future__ import annotations

import signal
from collections import deque

from flow_core.errors import AppTimeout
from flow_core.interfaces.outcome import Loss, LossKind, Place, Verdict
from flow_core.remote.errors import pack
from flow_executors.manager.fork_client import Died
from flow_executors.manager.manager_core import Record, WorkerLoss
from flow_executors.manager.worker_pool import Frame
from flow_executors.wire.kinds import Kind
from flow_executors.wire.messages import pack_loss
from flow_executors.wire.results import pack_results
from flow_executors.wire.tasks import pack_result, pack_tasks

_NUMBER_AT = slice(8, 12)  # the manager's number in RESULTS


class ResultBuffer:
    """Columns of the next message, and the messages that are not acknowledged."""

    def __init__(self) -> None:
        self.manager = 0
        """The number given by the interchange."""
        self.offset_ns = 0
        self._sequence = 0
        self._keys: list[int] = []
        self._starts: list[int] = []
        self._ends: list[int] = []
        self._workers: list[int] = []
        self._statuses = bytearray()
        self._payloads: list[bytes | memoryview] = []
        self._unacknowledged: deque[tuple[int, bytes, tuple[int, ...], float]] = deque()

    def __len__(self) -> int:
        return len(self._keys)

    def add_frames(self, rank: int, frames: list[Frame]) -> None:
        """Take results as a worker wrote them."""
        # As in a round trip: fewer steps than ``zip`` and its slices.
        if len(frames) == 1:
            key, start, end, status, payload = frames[0]
            self.add(key, status, payload, rank, start, end)
            return
        keys, starts, ends, statuses, payloads = zip(*frames, strict=True)
        self._keys += keys
        self._starts += starts
        self._ends += ends
        self._statuses += bytes(statuses)
        self._payloads += payloads
        self._workers += [rank] * len(keys)

    def add(
        self, key: int, status: int, payload: bytes | memoryview = b"", rank: int = 0, start: int = 0, end: int = 0
    ) -> None:
        """Take one outcome; ``status`` is a verdict with flags."""
        self._keys.append(key)
        self._starts.append(start)
        self._ends.append(end)
        self._workers.append(rank)
        self._statuses.append(status)
        self._payloads.append(payload)

    def pack(self, now: float) -> bytes:
        """Make one message of all that was gathered, and keep it until it is acknowledged."""
        self._sequence += 1
        message = self._one() if len(self._keys) == 1 else self._batch()
        # Kept until the client's socket has it: an interchange that dies takes nothing with it.
        self._unacknowledged.append((self._sequence, message, tuple(self._keys), now))
        self._keys, self._starts, self._ends, self._workers = [], [], [], []
        self._statuses, self._payloads = bytearray(), []
        return message

    def _one(self) -> bytes:
        return pack_result(
            self.manager,
            self._sequence,
            self.offset_ns,
            self._keys[0],
            self._starts[0],
            self._ends[0],
            self._workers[0],
            self._statuses[0],
            self._payloads[0],
        )

    def _batch(self) -> bytes:
        return pack_results(
            self.manager,
            self._sequence,
            self.offset_ns,
            self._keys,
            self._starts,
            self._ends,
            self._workers,
            self._statuses,
            self._payloads,
        )

    def acknowledge(self, sequence: int, now: float) -> float:
        """Forget messages up to this number; return for how many seconds the oldest has waited for that."""
        kept = self._unacknowledged
        waited_s = now - kept[0][3] if kept and kept[0][0] <= sequence else 0.0
        while kept and kept[0][0] <= sequence:
            kept.popleft()
        return waited_s

    def unacknowledged(self) -> list[bytes]:
        """Return the messages to send again after a new registration, under the number given there."""
        return [_numbered(message, self.manager) for _, message, _, _ in self._unacknowledged]

    def keys(self) -> list[int]:
        """Return the keys of results that are not acknowledged."""
        return [*self._keys, *(key for _, _, keys, _ in self._unacknowledged for key in keys)]

    @property
    def anything_unsent(self) -> bool:
        """Whether results wait to be sent or to be acknowledged."""
        return bool(self._keys or self._unacknowledged)


def _numbered(message: bytes, manager: int) -> bytes:
    """Return a message under another manager number."""
    number = manager.to_bytes(4, "little")
    # The number is the same after most reconnections: nothing is copied.
    if message[_NUMBER_AT] == number:
        return message
    return message[: _NUMBER_AT.start] + number + message[_NUMBER_AT.stop :]


def how(report: Died) -> str:
    """Return how a worker died, in words."""
    if report.how:
        return report.how
    if report.signal is None:
        return f"exited with code {report.exit_code}"
    try:
        name = signal.Signals(report.signal).name
    except ValueError:
        name = f"signal {report.signal}"
    hint = " (often: the node ran out of memory)" if name == "SIGKILL" else ""
    return f"was killed by {name}{hint}"


def worker_loss_outcome(report: Died, worker_loss: WorkerLoss, node: str, block: str) -> tuple[Verdict, bytes]:
    """Return verdict and payload for the task that a dead worker was running."""
    if worker_loss.termination == "cancel":
        return Verdict.CANCELLED, b"killed while it was running"
    if worker_loss.termination == "walltime":
        error = AppTimeout.after(worker_loss.walltime_s or 0.0, "could not be interrupted: its worker was killed")
        return Verdict.APP_ERROR, pack(error)
    text = (
        f"worker {report.rank} (pid {report.pid}) on node {node}, block {block}, {how(report)} while it was running "
        "the task"
    )
    place = Place("", block, node, worker=report.rank, pid=report.pid)  # not the worker that registered, if replaced
    # What Flow has ended itself, as a worker that hung, says nothing of what its task ran out of.
    number = None if report.how else report.signal
    return Verdict.LOST, pack_loss(Loss(LossKind.WORKER, place, report.exit_code, number, text, report.stderr_tail))


def interrupted_outcome(kind: LossKind, reason: str) -> tuple[Verdict, bytes]:
    """Return verdict and payload for a task that was running when the block ended."""
    return Verdict.LOST, pack_loss(Loss(kind, reason=f"the task was running when {reason}"))


def pack_returned(class_id: int, tasks: list[tuple[int, Record]], last: bool) -> bytes:
    """Pack tasks that are given back; ``last`` marks the end of the answer to a recall."""
    records = [record for _, record in tasks]
    return pack_tasks(
        class_id,
        (),
        [key for key, _ in tasks],
        [len(record) for record in records],
        b"".join(records),
        kind=Kind.RETURNED,
        last=last,
    )
