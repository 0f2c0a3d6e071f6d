"""How a lost try is described on the wire: JSON, see ``LossRecord``."""

from __future__ import annotations

from dataclasses import dataclass

from flow_core.interfaces.outcome import Loss, LossKind, Place
from flow_executors.errors import BadMessage
from flow_executors.wire.kinds import Buffer
from flow_executors.wire.schema import decode, encode


@dataclass(frozen=True, slots=True)
class LossRecord:
    """A Loss without its place, which the reader knows by the manager number and the worker."""

    kind: str
    exit_code: int | None = None
    signal: int | None = None
    reason: str = ""
    stderr_tail: str = ""
    pid: int = 0


def pack_loss(loss: Loss) -> bytes:
    """Pack a loss; of its place only the pid travels."""
    pid = loss.place.pid if loss.place else 0
    return encode(LossRecord(loss.kind.name, loss.exit_code, loss.signal, loss.reason, loss.stderr_tail, pid))


def unpack_loss(payload: Buffer, place: Place | None) -> Loss:
    """Parse a loss; ``place`` is where the try ran as far as the reader knows.

    Raises:
        BadMessage: no such record, or an unknown kind of loss.
    """
    record = decode(LossRecord, payload)
    if record.kind not in LossKind.__members__:
        raise BadMessage(f"unknown kind of loss {record.kind!r}")
    if place and record.pid and place.pid != record.pid:
        place = Place(place.executor, place.block, place.node, place.manager, place.worker, record.pid)
    return Loss(LossKind[record.kind], place, record.exit_code, record.signal, record.reason, record.stderr_tail)
