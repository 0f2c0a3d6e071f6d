"""Messages between the ranks of one MPI job, which all are of one release: their kinds, which are MPI's tags. No I/O.

Down, from rank 0 to the rank of a worker:

- TASK: ``u32 class id, u64 key``, and the record as it came over the wire
- SPEC, BLOB, FILE: the messages of the wire, as they are
- SPAWN: start the worker
- KILL: ``f64 age`` of its task, negative where it runs none
- SWEEP: ``u64 pid, f64 age``
- NUMBER: ``u32`` the manager's number at the interchange
- MARKER: JSON of the path of the run's marker, and its digest
- ECHO: the ``i64`` of a BEAT, and ``i64`` the clock of rank 0, in ns
- TELL: ``u64 pid``: tell its task that the block ends
- BYE: end

Up:

- FRAMES: results, progress of files, and that a task was told of the end, as a worker writes them (``worker.packets``)
- READY: ``u64 pid`` of the worker
- NEED, FILE, SAMPLES, NOTICE: NEED, FILE and EVENTS of the wire; text
- DIED: JSON of the report and of the pid; the tasks that the worker had not started follow, as in RETURNED of the wire
- FAILED: text, the worker could not be forked
- GONE: text, nothing starts workers any more on this rank
- BEAT: ``i64`` its clock, in ns
- ENDING: the rank received SIGTERM
- FELL: ``u32 rank, u64 pid`` of a neighbour on the same node, that has ended
- DONE: it has ended its worker
"""

from __future__ import annotations

import json
import struct
from enum import IntEnum

from flow_executors.errors import BadMessage
from flow_executors.manager.fork_client import Died
from flow_executors.manager.manager_core import Record
from flow_executors.wire.kinds import Kind
from flow_executors.wire.tasks import pack_tasks, unpack_tasks

TASK = struct.Struct("<IQ")
AGE = struct.Struct("<d")
SWEEP = struct.Struct("<Qd")
NUMBER = struct.Struct("<I")
PID = struct.Struct("<Q")
BEAT = struct.Struct("<q")
ECHO = struct.Struct("<qq")
FELL = struct.Struct("<IQ")
_LENGTH = struct.Struct("<I")


class RankMessage(IntEnum):
    """Kinds of messages between ranks."""

    TASK = 1
    SPEC = 2
    BLOB = 3
    FILE = 4
    SPAWN = 5
    KILL = 6
    SWEEP = 7
    NUMBER = 8
    MARKER = 9
    ECHO = 10
    BYE = 11
    TELL = 12
    FRAMES = 21
    READY = 22
    NEED = 23
    SAMPLES = 24
    NOTICE = 25
    DIED = 26
    FAILED = 27
    GONE = 28
    BEAT = 29
    ENDING = 30
    FELL = 31
    DONE = 32


def pack_died(report: Died, unstarted: list[tuple[int, Record]]) -> bytes:
    """Pack the death of a worker, with the tasks that it had not started."""
    fields = [report.pid, report.exit_code, report.signal, report.stderr_tail, report.how]
    head = json.dumps(fields).encode()
    keys = [key for key, _ in unstarted]
    sizes = [len(record) for _, record in unstarted]
    tasks = pack_tasks(0, (), keys, sizes, b"".join(record for _, record in unstarted), kind=Kind.RETURNED, last=True)
    return _LENGTH.pack(len(head)) + head + tasks


def unpack_died(worker: int, message: bytes) -> tuple[Died, list[tuple[int, bytes]]]:
    """Parse DIED of the rank of a worker into report and tasks. Raises BadMessage."""
    try:
        (size,) = _LENGTH.unpack_from(message)
        pid, exit_code, signum, tail, how = json.loads(message[_LENGTH.size : _LENGTH.size + size])
    except (ValueError, struct.error) as error:
        raise BadMessage(f"a rank reported a death in a form that is none: {error}") from None
    batch = unpack_tasks(memoryview(message)[_LENGTH.size + size :])
    tasks = [(key, bytes(record)) for key, record in zip(batch.keys, batch.records(), strict=True)]
    return Died(worker, pid, exit_code, signum, tail, how), tasks
