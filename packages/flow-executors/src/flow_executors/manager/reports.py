"""What a manager itself reports of tasks: how workers died under them, and which it gives back. Pure."""

from __future__ import annotations

import signal

from flow_core.errors import AppTimeout
from flow_core.interfaces.outcome import Loss, LossKind, Place, Verdict
from flow_core.remote.errors import pack
from flow_executors.manager.nursery import Died
from flow_executors.manager.records import Fallen, Record
from flow_executors.wire.frames import Kind, pack_loss, pack_tasks


def how(report: Died) -> str:
    """Say how a worker died."""
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


def fallen_outcome(report: Died, fallen: Fallen, node: str, block: str) -> tuple[Verdict, bytes]:
    """Return verdict and payload for the task that a dead worker was running."""
    if fallen.doom == "cancel":
        return Verdict.CANCELLED, b"killed while it was running"
    if fallen.doom == "walltime":
        error = AppTimeout.after(fallen.walltime_s or 0.0, "could not be interrupted: its worker was killed")
        return Verdict.APP_ERROR, pack(error)
    text = (
        f"worker {report.rank} (pid {report.pid}) on node {node}, block {block}, {how(report)} while it was running "
        "the task"
    )
    place = Place("", block, node, worker=report.rank, pid=report.pid)  # not the worker that registered, if replaced
    return Verdict.LOST, pack_loss(
        Loss(LossKind.WORKER, place, report.exit_code, report.signal, text, report.stderr_tail)
    )


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
