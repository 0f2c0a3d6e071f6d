"""Events of a node. EVENTS: ``u8 kind, 3 x 0, u32 manager number``, then JSON of ``NodeEvents``.

The client completes executor, block, node and manager from what it knows of the manager number.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

from flow_core.interfaces.call import TryKey
from flow_core.interfaces.sampler import Sample
from flow_executors.wire.kinds import Buffer, Kind, expect
from flow_executors.wire.schema import LEFT_OUT, decode, encode

_EVENTS = struct.Struct("<BxxxI")


@dataclass(frozen=True, slots=True)
class SampleRecord:
    """A Sample with plain types; ``key`` None for the node as a whole."""

    time_ns: int
    key: int | None
    pid: int
    processes: int
    cpu_percent: float
    cpu_user_s: float
    cpu_system_s: float
    memory_rss: int
    memory_percent: float
    disk_read: int
    disk_write: int
    net_sent: int | None = field(default=None, metadata=LEFT_OUT)
    net_received: int | None = field(default=None, metadata=LEFT_OUT)


@dataclass(frozen=True, slots=True)
class NodeEvents:
    """Samples taken at one time, and events that could not be kept."""

    samples: tuple[SampleRecord, ...] = ()
    lost: int = 0


def pack_samples(manager: int, samples: Sequence[Sample], lost: int = 0) -> bytes:
    """Pack EVENTS."""
    records = tuple(SampleRecord(*(getattr(sample, name) for name in SampleRecord.__slots__)) for sample in samples)
    return _EVENTS.pack(Kind.EVENTS, manager) + encode(NodeEvents(records, lost))


def unpack_samples(message: Buffer) -> tuple[int, tuple[Sample, ...], int]:
    """Parse EVENTS into manager number, samples and the number of lost events.

    Raises:
        BadMessage: it is none.
    """
    view = expect(message, _EVENTS.size, Kind.EVENTS)
    _, manager = _EVENTS.unpack_from(view)
    found = decode(NodeEvents, view[_EVENTS.size :])
    return manager, tuple(_sample(record) for record in found.samples), found.lost


def _sample(record: SampleRecord) -> Sample:
    values = {name: getattr(record, name) for name in SampleRecord.__slots__}
    key = record.key
    values["key"] = None if key is None else TryKey(key)
    return Sample(**values)
