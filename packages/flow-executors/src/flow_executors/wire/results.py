"""Batches of outcomes, and what each payload means.

RESULTS, little endian::

    u8 kind, u8 told, u16 0, u32 n, u32 manager number, u32 sequence number, i64 clock offset in ns,
    n x u64 keys, n x i64 start, n x i64 end, n x u32 payload lengths, n x u16 worker, n x u8 status,
    then the n payloads joined

Times are nanoseconds of the manager's own clock, 0 where not known; the reader adds the clock offset. The sequence
number counts the manager's messages from 1 (0 from the interchange) and is what ACK refers to.

Told: 1 if the manager has sent the client itself the same results; so they do not hurry.

Status: a Verdict in the low four bits, and flags. Payload by verdict:

- OK: pickle of the value; empty for None. With flag BUFFERS preceded by a table of buffers as in a task's record.
- APP_ERROR: the exception as packed by ``flow_core.remote.errors.pack``. With flag UNLOADED the function or its
  arguments could not be loaded on the node, so nothing has run; with UNIMPORTED the function did not find a module.
- REQUEUED: the same, of a task that was told that its block ends and is to be run again.
- LOST: a Loss as packed by ``messages.pack_loss``.
- REFUSED, RETURNED, CANCELLED: the reason as UTF-8 text, may be empty.

With flag USAGE the payload (before any table) starts with f64 user and f64 system CPU seconds, u64 peak resident KiB,
u64 blocks read, u64 blocks written.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate

from flow_core.interfaces.outcome import Usage
from flow_executors.errors import BadMessage
from flow_executors.wire.kinds import RESULTS, Buffer, exact, expect

# Parts of the status byte, see above; the loop of workers has the flags of its own, as it imports nothing of this.
VERDICT_MASK = 0x0F
USAGE = 0x80
BUFFERS = 0x40
UNLOADED = 0x20
UNIMPORTED = 0x10

_HEADER = struct.Struct("<BxxxIIIq")
_USAGE = struct.Struct("<ddQQQ")
USAGE_SIZE = _USAGE.size
read_usage = _USAGE.unpack_from
# Bytes of one outcome: key, start, end, payload length, worker, status.
_ROW = 8 + 8 + 8 + 4 + 2 + 1


@dataclass(frozen=True, slots=True)
class ResultBatch:
    """A parsed batch: columns of equal length, and the payloads joined in ``body``."""

    manager: int
    sequence: int
    offset_ns: int
    keys: tuple[int, ...]
    starts: tuple[int, ...]
    ends: tuple[int, ...]
    lengths: tuple[int, ...]
    workers: tuple[int, ...]
    statuses: bytes
    body: memoryview

    def payloads(self) -> list[memoryview]:
        """Return a view of each payload, in the order of the keys."""
        # All results are None, as of tasks that are called for what they do.
        if not self.body:
            return [self.body] * len(self.lengths)
        ends = accumulate(self.lengths)
        return [self.body[end - size : end] for end, size in zip(ends, self.lengths, strict=True)]


def pack_results(
    manager: int,
    sequence: int,
    offset_ns: int,
    keys: Sequence[int],
    starts: Sequence[int],
    ends: Sequence[int],
    workers: Sequence[int],
    statuses: bytes | bytearray | Sequence[int],
    payloads: Sequence[Buffer],
) -> bytes:
    """Pack outcomes of one manager."""
    n = len(keys)
    lengths = map(len, payloads)
    head = _HEADER.pack(RESULTS, n, manager, sequence, offset_ns)
    columns = struct.pack(f"<{n}Q{n}q{n}q{n}I{n}H", *keys, *starts, *ends, *lengths, *workers)
    return b"".join((head, columns, bytes(statuses), *payloads))


def result_head(message: Buffer) -> tuple[int, int, tuple[int, ...]]:
    """Return (manager number, sequence number, keys) of RESULTS: all that a broker looks at.

    Raises:
        BadMessage: it is too short for its rows.
    """
    view = expect(message, _HEADER.size, RESULTS)
    _, n, manager, sequence, _ = _HEADER.unpack_from(view)
    if len(view) < _HEADER.size + n * _ROW:
        raise BadMessage(f"RESULTS message of {len(view)} bytes is too short for {n} rows")
    return manager, sequence, struct.unpack_from(f"<{n}Q", view, _HEADER.size)


def unpack_results(message: Buffer) -> ResultBatch:
    """Parse RESULTS.

    Raises:
        BadMessage: its parts do not fit together.
    """
    view = expect(message, _HEADER.size, RESULTS)
    _, n, manager, sequence, offset_ns = _HEADER.unpack_from(view)
    status_end = _HEADER.size + n * _ROW
    if len(view) < status_end:
        raise BadMessage(f"RESULTS message of {len(view)} bytes is too short for {n} rows")
    numbers = struct.unpack_from(f"<{n}Q{n}q{n}q{n}I{n}H", view, _HEADER.size)
    lengths = numbers[3 * n : 4 * n]
    exact(view, status_end + sum(lengths), RESULTS)
    return ResultBatch(
        manager,
        sequence,
        offset_ns,
        numbers[:n],
        numbers[n : 2 * n],
        numbers[2 * n : 3 * n],
        lengths,
        numbers[4 * n :],
        bytes(view[status_end - n : status_end]),
        view[status_end:],
    )


def only_of(message: Buffer, wanted: Callable[[int], bool]) -> bytes | None:
    """Return RESULTS with the outcomes of those tasks alone whose key is wanted; None where none is.

    Raises:
        BadMessage: its parts do not fit together.
    """
    batch = unpack_results(message)
    rows = [place for place, key in enumerate(batch.keys) if wanted(key)]
    if not rows:
        return None
    payloads = batch.payloads()
    keys, starts, ends, workers = (
        [column[row] for row in rows] for column in (batch.keys, batch.starts, batch.ends, batch.workers)
    )
    statuses, bodies = bytes(batch.statuses[row] for row in rows), [payloads[row] for row in rows]
    return pack_results(batch.manager, batch.sequence, batch.offset_ns, keys, starts, ends, workers, statuses, bodies)


def pack_usage(usage: Usage) -> bytes:
    """Pack what a try used, to stand before its payload."""
    return _USAGE.pack(
        usage.cpu_user_s, usage.cpu_system_s, usage.max_rss_kb, usage.io_read_blocks, usage.io_write_blocks
    )


def unpack_usage(payload: memoryview) -> tuple[Usage, memoryview]:
    """Parse what a try used; return it and the rest of the payload.

    Raises:
        BadMessage: the payload is too short.
    """
    if len(payload) < _USAGE.size:
        raise BadMessage("the usage of a task is cut short")
    return Usage(*_USAGE.unpack_from(payload)), payload[_USAGE.size :]
