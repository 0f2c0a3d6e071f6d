"""How managers come and go.

- REGISTER: ``u8 kind, 3 x 0, u32 manager number (0: none yet), u32 JSON length, u32 n``, the JSON of ``Registration``,
  ``n x u64`` keys that the manager still holds: waiting, running, or with a result not acknowledged. The results not
  acknowledged follow at once as RESULTS.
- WORKER: ``u8 kind, 3 x 0, u32 manager number, u32 rank, u32 pid``
- WELCOME: ``u8 kind``, then JSON of ``Welcome``
- LEFT: ``u8 kind``, then JSON of ``Departure``

Clock offset: the manager takes its time before REGISTER (``time_ns``) and after WELCOME; the offset that it states in
results and heartbeats is ``Welcome.time_ns`` minus the middle of the two.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from flow_executors.errors import BadMessage
from flow_executors.wire.kinds import Buffer, Kind, exact, expect
from flow_executors.wire.schema import decode, encode

_REGISTER = struct.Struct("<BxxxIII")
_WORKER = struct.Struct("<BxxxIII")


@dataclass(frozen=True, slots=True)
class Registration:
    """What a manager offers.

    Attributes:
        manager_id: Unique name of the manager process, kept over reconnections.
        block: Block it belongs to; must be the one of its key.
        node: Host name.
        pid: Process id on that host.
        workers: Tasks of the default class that can run at once.
        prefetch: Tasks of the default class taken beyond that.
        cores: Cores to give to tasks.
        memory_mb: Memory to give to tasks; 0 where not limited.
        gpus: Accelerators to give to tasks.
        named: Other resources as (name, amount).
        cpu_count: Cores of the node.
        memory_bytes: Memory of the node.
        python: Version of Python.
        software: Version of this package.
        host_id: Tells whether two processes see the same files in memory (boot id and namespace).
        time_ns: The manager's clock when it sent this.
        ends_at_ns: When the block's own time is over (ns UTC); 0 where not known.
        worker_pids: Process ids of the workers by rank, 0 where not known.
    """

    manager_id: str
    block: str
    node: str
    pid: int
    workers: int
    prefetch: int = 0
    cores: float = 0.0
    memory_mb: int = 0
    gpus: float = 0.0
    named: tuple[tuple[str, float], ...] = ()
    cpu_count: int = 0
    memory_bytes: int = 0
    python: str = ""
    software: str = ""
    host_id: str = ""
    time_ns: int = 0
    ends_at_ns: int = 0
    worker_pids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Welcome:
    """The answer to a registration; times in ns UTC of the interchange's clock, periods in seconds.

    ``host_id`` is that of the interchange and the client, as in ``Registration``. ``results`` is where managers of the
    same machine find the client itself, to tell it a result at once; empty where they do not.
    """

    manager: int
    time_ns: int
    heartbeat_period_s: float
    heartbeat_threshold_s: float
    host_id: str = ""
    results: str = ""


@dataclass(frozen=True, slots=True)
class Departure:
    """A manager is gone: ``lost`` without having said so, else drained or done."""

    manager: int
    manager_id: str
    block: str
    node: str
    reason: str
    lost: bool


def pack_register(manager: int, registration: Registration, held: Sequence[int]) -> bytes:
    """Pack REGISTER."""
    body = encode(registration)
    head = _REGISTER.pack(Kind.REGISTER, manager, len(body), len(held))
    return head + body + struct.pack(f"<{len(held)}Q", *held)


def unpack_register(message: Buffer) -> tuple[int, Registration, tuple[int, ...]]:
    """Parse REGISTER into the number, the offer and the keys held.

    Raises:
        BadMessage: its parts do not fit together, or an offer is impossible.
    """
    view = expect(message, _REGISTER.size, Kind.REGISTER)
    _, manager, size, n = _REGISTER.unpack_from(view)
    exact(view, _REGISTER.size + size + n * 8, Kind.REGISTER)
    body = view[_REGISTER.size : _REGISTER.size + size]
    registration = decode(Registration, body)
    if not (0 <= registration.workers < 1 << 20 and 0 <= registration.prefetch < 1 << 24):
        raise BadMessage(f"a manager cannot have {registration.workers} workers, prefetch {registration.prefetch}")
    return manager, registration, struct.unpack_from(f"<{n}Q", view, _REGISTER.size + size)


def pack_worker(manager: int, rank: int, pid: int) -> bytes:
    """Pack WORKER."""
    return _WORKER.pack(Kind.WORKER, manager, rank, pid)


def unpack_worker(message: Buffer) -> tuple[int, int, int]:
    """Parse WORKER into the manager's number, the rank and the process id.

    Raises:
        BadMessage: it is none.
    """
    view = expect(message, _WORKER.size, Kind.WORKER)
    exact(view, _WORKER.size, Kind.WORKER)
    _, manager, rank, pid = _WORKER.unpack_from(view)
    return manager, rank, pid


def pack_welcome(welcome: Welcome) -> bytes:
    """Pack WELCOME."""
    return bytes((Kind.WELCOME,)) + encode(welcome)


def unpack_welcome(message: Buffer) -> Welcome:
    """Parse WELCOME.

    Raises:
        BadMessage: it is none.
    """
    return decode(Welcome, expect(message, 1, Kind.WELCOME)[1:])


def pack_left(departure: Departure) -> bytes:
    """Pack LEFT."""
    return bytes((Kind.LEFT,)) + encode(departure)


def unpack_left(message: Buffer) -> Departure:
    """Parse LEFT.

    Raises:
        BadMessage: it is none.
    """
    return decode(Departure, expect(message, 1, Kind.LEFT)[1:])
