"""Packets and frames between a manager and one of its workers, through two pipes of one machine. No I/O.

To the worker, one packet of at most PACKET bytes a task: either a task's record as it came over the wire (class 0,
small enough), or an *envelope*, which begins with ENVELOPE where a record has its function's digest::

    16 B ENVELOPE, u64 key, u32 class id, u32 file, u32 extra length, extra, record

``extra`` is a pickle of (TaskSpec, variables). With ``file`` other than INLINE, extra and record are the content of
that descriptor of the manager. In both forms the key stands at KEY_AT.

From the worker, a stream::

    u32 payload length, u64 key, i64 start, i64 end, u8 status, payload

A worker may have a *direct channel*, a second stream of that kind, to the script itself. Results of records flagged
DIRECT, which the script has put into the worker's pipe without its manager, go there unless they are large; all
else does not.

Status as in RESULTS of the wire, or READY (the worker waits for tasks), or NEED (payload: digest of a missing blob), or
FILES (payload: JSON of how far files of the task that runs are; a frame of at most PIPE_ATOMIC bytes, so that it never
stands within another), or TOLD (the task that runs was told that its block ends).
"""

from __future__ import annotations

import struct
from signal import SIGRTMIN, SIGUSR1, SIGUSR2

PACKET = 4096
"""Longest packet in bytes, one page: a packet pipe takes no more as one."""
ENVELOPE = b"\x00flow.letter.1\x00\x00"
# In place of a descriptor: extra and record follow in the packet itself.
INLINE = 0xFFFFFFFF
# Offset of the key in records and envelopes, so that the loop need not know which of them it has.
KEY_AT = 16
FLAGS_AT = 28
"""In a record, not in an envelope."""
DIRECT = 0x02
LANE_ROOM = 16_384
"""Longest payload in bytes that goes over a direct channel, whose pipe is so never full: few tasks are out at a
time."""
# Statuses beside those of results; no combination of a verdict and flags has these values.
READY = 0xFF
NEED = 0xFE
FILES = 0xFD
TOLD = 0xFC
# Bytes that the kernel writes to a pipe in one piece (PIPE_BUF): threads of a task write, too.
PIPE_ATOMIC = 4096
# A real-time signal: those that programs and schedulers use for ends of their own are all below.
BLOCK_ENDS = SIGRTMIN + 5
"""Signal by which a worker hears that the block of the task that it runs ends; it answers by TOLD."""
NOTICES = (SIGUSR1, SIGUSR2)
"""Signals by which schedulers tell ahead that a job will end, some of them all of its processes: the manager acts on
them, and workers outlive them."""
OK = 0
APP_ERROR = 1
LOST = 2
REQUEUED = 6

KEY = struct.Struct("<Q")
FRAME = struct.Struct("<IQqqB")
_ENVELOPE = struct.Struct("<16sQIII")
ENVELOPE_ROOM = PACKET - _ENVELOPE.size


def pack_envelope(key: int, class_id: int, extra: bytes, record: bytes | memoryview) -> bytes:
    """Pack a task that needs more than its record, all in one packet."""
    return b"".join((_ENVELOPE.pack(ENVELOPE, key, class_id, INLINE, len(extra)), extra, record))


def pack_envelope_to_file(key: int, class_id: int, extra_size: int, file: int) -> bytes:
    """Pack an envelope whose extra and record are the content of a file of the manager."""
    return _ENVELOPE.pack(ENVELOPE, key, class_id, file, extra_size)


def unpack_envelope(packet: bytes) -> tuple[int, int, memoryview]:
    """Return file, size of the extra, and the extra and record themselves where they are inline."""
    _, _, _, file, size = _ENVELOPE.unpack_from(packet)
    return file, size, memoryview(packet)[_ENVELOPE.size :]


def is_direct(packet: bytes) -> bool:
    """Whether the result of a packet is awaited by the script itself."""
    return bool(packet[FLAGS_AT] & DIRECT) and not packet.startswith(ENVELOPE)


def made_direct(record: bytes) -> bytes:
    """Return a record whose result is to come over the direct channel."""
    return b"".join((record[:FLAGS_AT], bytes((record[FLAGS_AT] | DIRECT,)), record[FLAGS_AT + 1 :]))


def made_plain(packet: bytes) -> bytes:
    """Return a packet whose result is to go to the manager, which gives it on."""
    if not is_direct(packet):
        return packet
    return b"".join((packet[:FLAGS_AT], bytes((packet[FLAGS_AT] & ~DIRECT,)), packet[FLAGS_AT + 1 :]))


def key_of(packet: bytes) -> int:
    """Return the key of a packet, record or envelope."""
    key: int = KEY.unpack_from(packet, KEY_AT)[0]
    return key
