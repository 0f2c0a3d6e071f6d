"""Batches of tasks, the record of one task, and messages of one task or one result.

TASKS and RETURNED, little endian::

    u8 kind, u8 flags, u16 0, u32 class id, u32 n, u32 nf,
    nf x 16 B digests of blobs that the tasks need, n x u64 keys, n x u32 record lengths, then the n records joined

A batch is homogeneous in its class: brokers schedule classes and never read records. Flag LAST (RETURNED only) marks
the last message that answers one RECALL.

Record of one task, which goes to the worker as it is::

    16 B digest of the function, u64 key, u32 class id, u8 flags, 3 x u8 0, payload

Flags: BUFFERS, see below, and that of a record which the script itself has given to a worker (``worker.packets``).

Payload: empty when there are no arguments and no steps, else a pickle of ``(args, kwargs, steps)``. With flag BUFFERS
the pickle is preceded by a table of the large buffers that travel out of band (pickle protocol 5), in order::

    u32 m, m x buffer;  buffer = 16 B blob id, u64 offset, u64 length, u16 hint length, hint (a path, UTF-8)

A worker maps ``length`` bytes at ``offset`` of the file named by the hint when it can open it (same host, or shared
file system) and the file's own name holds the blob id in hexadecimal; else it asks for the blob (NEED) and takes
the bytes at the same offset.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from flow_core.interfaces.outcome import Verdict
from flow_executors.errors import BadMessage
from flow_executors.wire.kinds import DIGEST_SIZE, RESULTS, RETURNED, TASKS, Buffer, Kind, Received, exact, expect

LAST = 0x01
BUFFERS = 0x01

_HEADER = struct.Struct("<BBxxIII")
RECORD_HEADER = struct.Struct("<16sQIB3x")
_BUFFER = struct.Struct("<16sQQH")
_COUNT = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class TaskBatch:
    """A parsed batch. ``body`` holds the records joined; ``lengths`` cut it."""

    class_id: int
    digests: tuple[bytes, ...]
    keys: tuple[int, ...]
    lengths: tuple[int, ...]
    body: memoryview
    last: bool = False

    def records(self) -> list[memoryview]:
        """Return a view of each record, in the order of the keys."""
        ends = accumulate(self.lengths)
        return [self.body[end - size : end] for end, size in zip(ends, self.lengths, strict=True)]


@dataclass(frozen=True, slots=True)
class BufferRef:
    """Where one out-of-band buffer lies: a blob, and a path that spares its transfer where it can be opened."""

    blob: bytes
    offset: int
    length: int
    hint: str


@dataclass(frozen=True, slots=True)
class TaskRecord:
    """A parsed record; ``payload`` is what is to be unpickled."""

    digest: bytes
    key: int
    class_id: int
    buffers: tuple[BufferRef, ...]
    payload: memoryview


def pack_tasks(
    class_id: int,
    digests: Sequence[bytes],
    keys: Sequence[int],
    lengths: Sequence[int],
    body: Buffer,
    *,
    kind: Kind = TASKS,
    last: bool = False,
) -> bytes:
    """Pack a batch whose records are already joined in ``body``."""
    n = len(keys)
    head = _HEADER.pack(kind, LAST if last else 0, class_id, n, len(digests))
    # One buffer a message: a frame a task costs 15 to 30 times as much as records joined.
    return b"".join((head, *digests, struct.pack(f"<{n}Q{n}I", *keys, *lengths), body))


def unpack_tasks(message: Buffer) -> TaskBatch:
    """Parse TASKS or RETURNED.

    Raises:
        BadMessage: its parts do not fit together.
    """
    view = expect(message, _HEADER.size, TASKS, RETURNED)
    _, flags, class_id, n, nf = _HEADER.unpack_from(view)
    digests_end = _HEADER.size + nf * DIGEST_SIZE
    body_start = digests_end + n * 12
    # Lengths are checked before anything is unpacked: ``n`` and ``nf`` are the sender's word.
    if len(view) < body_start:
        raise BadMessage(f"TASKS message of {len(view)} bytes: its {n} tasks need at least {body_start}")
    numbers = struct.unpack_from(f"<{n}Q{n}I", view, digests_end)
    lengths = numbers[n:]
    exact(view, body_start + sum(lengths), TASKS)
    digests = tuple(bytes(view[at : at + DIGEST_SIZE]) for at in range(_HEADER.size, digests_end, DIGEST_SIZE))
    return TaskBatch(class_id, digests, numbers[:n], lengths, view[body_start:], bool(flags & LAST))


def pack_record(digest: bytes, key: int, class_id: int, payload: bytes, buffers: Sequence[BufferRef] = ()) -> bytes:
    """Pack one task; ``payload`` is the pickle, or empty."""
    head = RECORD_HEADER.pack(digest, key, class_id, BUFFERS if buffers else 0)
    return head + pack_buffers(buffers) + payload if buffers else head + payload


def unpack_record(record: Buffer) -> TaskRecord:
    """Parse one task's record.

    Raises:
        BadMessage: it is too short, or its table of buffers is wrong.
    """
    view = memoryview(record)
    if len(view) < RECORD_HEADER.size:
        raise BadMessage(f"task record of {len(view)} bytes: at least {RECORD_HEADER.size} needed")
    digest, key, class_id, flags = RECORD_HEADER.unpack_from(view)
    rest = view[RECORD_HEADER.size :]
    buffers, rest = unpack_buffers(rest) if flags & BUFFERS else ((), rest)
    return TaskRecord(digest, key, class_id, buffers, rest)


def pack_buffers(buffers: Sequence[BufferRef]) -> bytes:
    """Pack the table of out-of-band buffers that stands before a payload."""
    parts = [_COUNT.pack(len(buffers))]
    for ref in buffers:
        hint = ref.hint.encode()
        parts.append(_BUFFER.pack(ref.blob, ref.offset, ref.length, len(hint)) + hint)
    return b"".join(parts)


def unpack_buffers(view: memoryview) -> tuple[tuple[BufferRef, ...], memoryview]:
    """Parse a table of buffers; return it and what follows it.

    Raises:
        BadMessage: the table is cut short, or a hint is no text.
    """
    if len(view) < _COUNT.size:
        raise BadMessage("table of buffers cut short")
    (count,) = _COUNT.unpack_from(view)
    at = _COUNT.size
    found = []
    for _ in range(count):
        if len(view) < at + _BUFFER.size:
            raise BadMessage("table of buffers cut short")
        blob, offset, length, size = _BUFFER.unpack_from(view, at)
        at += _BUFFER.size
        if len(view) < at + size:
            raise BadMessage("table of buffers cut short")
        try:
            hint = str(view[at : at + size], "utf-8")
        except UnicodeDecodeError:
            raise BadMessage("the hint of a buffer is no UTF-8") from None
        at += size
        found.append(BufferRef(blob, offset, length, hint))
    return tuple(found), view[at:]


# -- messages of one task: the layouts above and of ``wire.results`` for a batch of one, read in one step

_TASK = struct.Struct(f"<BBxxIII{DIGEST_SIZE}sQI")
_RESULT = struct.Struct("<BxxxIIIqQqqIHB")

TOLD_AT = 1
"""Offset in RESULTS of the mark that the client has the result already."""
_OK = Verdict.OK
Result = tuple[int, int, int, int, int, int, Buffer]
"""manager number, clock offset, key, start, end, worker, payload"""


def pack_task(digest: bytes, key: int, record: bytes) -> bytes:
    """Pack a task of the default class."""
    return _TASK.pack(TASKS, 0, 0, 1, 1, digest, key, len(record)) + record


def head_of_one(message: Buffer) -> tuple[bytes, int] | None:
    """Return (digest, key) if the message is one task of the default class; else None."""
    if len(message) < _TASK.size:
        return None
    kind, flags, class_id, tasks, digests, digest, key, size = _TASK.unpack_from(message)
    # All fields are compared at once: whatever is unusual goes the long way.
    if (kind, flags, class_id, tasks, digests) != (TASKS, 0, 0, 1, 1) or len(message) != _TASK.size + size:
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
    return _RESULT.pack(RESULTS, 1, manager, sequence, offset_ns, key, start, end, size, worker, status) + payload


def mark_delivered(message: bytes) -> bytes:
    """Return RESULTS with the mark that the client has the same results already."""
    return message[:TOLD_AT] + b"\1" + message[TOLD_AT + 1 :]


def one_result(message: Buffer) -> Result | None:
    """Return the result if the message is that of one task that went well, with nothing about it; else None."""
    if len(message) < _RESULT.size:
        return None
    kind, count, manager, _, offset, key, start, end, size, worker, status = _RESULT.unpack_from(message)
    if (kind, count, status) != (RESULTS, 1, _OK) or len(message) != _RESULT.size + size:
        return None
    return manager, offset, key, start, end, worker, message[_RESULT.size :]
