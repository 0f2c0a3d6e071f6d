"""Messages of one task: the layouts of ``wire.tasks`` and ``wire.results`` for a batch of one, read in one step."""

from __future__ import annotations

import struct

from flow_core.interfaces.outcome import Verdict
from flow_executors.wire.kinds import DIGEST_SIZE, Buffer, Kind, Received

_TASK = struct.Struct(f"<BBxxIII{DIGEST_SIZE}sQI")
_RESULT = struct.Struct("<BxxxIIIqQqqIHB")

TOLD_AT = 1
"""Where a message of RESULTS has its mark."""
Result = tuple[int, int, int, int, int, int, Buffer]
"""manager number, clock offset, key, start, end, worker, payload"""


def pack_task(digest: bytes, key: int, record: bytes) -> bytes:
    """Pack a task of the default class."""
    return _TASK.pack(Kind.TASKS, 0, 0, 1, 1, digest, key, len(record)) + record


def head_of_one(message: Buffer) -> tuple[bytes, int] | None:
    """Return (digest, key) if the message is one task of the default class; else None."""
    if len(message) < _TASK.size:
        return None
    kind, flags, class_id, tasks, digests, digest, key, size = _TASK.unpack_from(message)
    if (kind, flags, class_id, tasks, digests) != (Kind.TASKS, 0, 0, 1, 1) or len(message) != _TASK.size + size:
        return None
    return digest, key


def one_task(message: Received) -> tuple[bytes, int, Received] | None:
    """Return (digest, key, record) if the message is one task of the default class; else None."""
    head = head_of_one(message)
    return None if head is None else (*head, message[_TASK.size :])


def pack_result(
    manager: int,
    sequence: int,
    offset_ns: int,
    key: int,
    start: int,
    end: int,
    worker: int,
    status: int,
    payload: Buffer,
) -> bytes:
    """Pack the outcome of one task."""
    size = len(payload)
    return _RESULT.pack(Kind.RESULTS, 1, manager, sequence, offset_ns, key, start, end, size, worker, status) + payload


def marked_told(message: bytes) -> bytes:
    """Return RESULTS with the mark that the client has been told of what is in it."""
    return message[:TOLD_AT] + b"\1" + message[TOLD_AT + 1 :]


def one_result(message: Buffer) -> Result | None:
    """Return the result if the message is that of one task that went well, with nothing about it; else None."""
    if len(message) < _RESULT.size:
        return None
    kind, count, manager, _, offset, key, start, end, size, worker, status = _RESULT.unpack_from(message)
    if (kind, count, status) != (Kind.RESULTS, 1, Verdict.OK) or len(message) != _RESULT.size + size:
        return None
    return manager, offset, key, start, end, worker, message[_RESULT.size :]
