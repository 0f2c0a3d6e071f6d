"""What a class id stands for. SPEC: ``u8 kind, 3 x 0, u32 class id``, then the TaskSpec as JSON.

Class 0 is the default class and needs no SPEC.
"""

from __future__ import annotations

import struct

from flow_core.interfaces.call import TaskSpec
from flow_executors.errors import BadMessage
from flow_executors.wire.kinds import Buffer, Kind, expect
from flow_executors.wire.schema import decode, encode

DEFAULT_CLASS = 0
_SPEC = struct.Struct("<BxxxI")


def pack_spec(class_id: int, spec: TaskSpec) -> bytes:
    """Pack SPEC."""
    return _SPEC.pack(Kind.SPEC, class_id) + encode(spec)


def unpack_spec(message: Buffer) -> tuple[int, TaskSpec]:
    """Parse SPEC into class id and TaskSpec.

    Raises:
        BadMessage: no TaskSpec, or one that asks for less than nothing.
    """
    view = expect(message, _SPEC.size, Kind.SPEC)
    (_, class_id) = _SPEC.unpack_from(view)
    spec = decode(TaskSpec, view[_SPEC.size :])
    resources = spec.resources
    if min(resources.cores, resources.memory_mb, resources.gpus, resources.disk_mb) < 0 or resources.nodes < 1:
        raise BadMessage("a task cannot ask for less than nothing")
    return class_id, spec
