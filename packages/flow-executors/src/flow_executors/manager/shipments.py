"""Large results on their way: from the worker's file of memory to the client's, or into the message."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

from flow_core.interfaces.outcome import Loss, LossKind, Verdict
from flow_executors.manager.stream import Frame
from flow_executors.wire.frames import pack_loss
from flow_executors.wire.results import USAGE, USAGE_SIZE
from flow_executors.wire.tasks import pack_buffers, unpack_buffers
from flow_executors.worker.large import CLIENT, MANAGER, sign, signed

SWEEP_S = 0.05
_MOST_FILES = 256


@dataclass(frozen=True, slots=True)
class _Shipment:
    """A file that the client has not opened yet."""

    descriptor: int
    size: int


class Shipments:
    """The files of results that are out. One thread.

    Attributes:
        same_host: Whether the client can open files of this process; else their content goes into the message.
    """

    def __init__(self) -> None:
        self.same_host = False
        self._out: list[_Shipment] = []

    def __len__(self) -> int:
        return len(self._out)

    def taken_over(self, frame: Frame) -> Frame:
        """Return the frame of a result as it is to be sent, with its file in the hands of this process."""
        key, start, end, status, payload = frame
        view = memoryview(payload)
        head = USAGE_SIZE if status & USAGE else 0
        try:
            refs, rest = unpack_buffers(view[head:])
            descriptor = os.open(refs[0].hint, os.O_RDWR | os.O_CLOEXEC)
        except (OSError, IndexError) as error:
            reason = f"the worker died before its large result was taken over: {error}"
            return key, start, end, int(Verdict.LOST), pack_loss(Loss(LossKind.WORKER, reason=reason))
        sign(descriptor, MANAGER)
        size = os.fstat(descriptor).st_size - 1
        if self.same_host and len(self._out) < _MOST_FILES:
            self._out.append(_Shipment(descriptor, size))
            content = pack_buffers([replace(ref, hint=f"/proc/{os.getpid()}/fd/{descriptor}") for ref in refs])
        else:
            content = pack_buffers([replace(ref, hint="") for ref in refs]) + _whole(descriptor, size)
            os.close(descriptor)
        return key, start, end, status, b"".join((view[:head], content, rest))

    def sweep(self) -> None:
        """Close the files that the client has opened."""
        for shipment in self._out:
            if signed(shipment.descriptor, shipment.size, CLIENT):
                os.close(shipment.descriptor)
                self._out = [other for other in self._out if other is not shipment]

    def close(self) -> None:
        """Close all files."""
        for shipment in self._out:
            os.close(shipment.descriptor)
        self._out.clear()


def _whole(descriptor: int, size: int) -> bytes:
    pieces, at = [], 0
    while at < size:
        pieces.append(os.pread(descriptor, size - at, at))
        at += len(pieces[-1])
    return b"".join(pieces)
