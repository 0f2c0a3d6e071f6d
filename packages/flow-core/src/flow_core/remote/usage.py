"""Resource usage of tasks, by the system's own account of this process or of one thread and the commands it ran."""

from __future__ import annotations

import resource
import threading
from resource import RUSAGE_CHILDREN, RUSAGE_SELF, getrusage, struct_rusage
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flow_core.interfaces.outcome import Usage

Used = tuple[float, float, int, int, int]
"""CPU seconds of user and system, most memory in KiB, blocks read and written; all but the memory only grow."""

# Linux only: elsewhere nothing is known of single threads.
_THREAD: int | None = getattr(resource, "RUSAGE_THREAD", None)
_here = threading.local()


def process_used() -> Used:
    """Return what this process and the children it waited for have used."""
    own, below = getrusage(RUSAGE_SELF), getrusage(RUSAGE_CHILDREN)
    # Fields of struct_rusage by place: 0 and 1 are CPU times, 2 the most memory, 9 and 10 blocks read and written.
    return (
        own[0] + below[0],
        own[1] + below[1],
        own[2] if own[2] > below[2] else below[2],
        own[9] + below[9],
        own[10] + below[10],
    )


def begin_thread() -> Used | None:
    """Begin to account for a task in the calling thread; return what that has used, None where it is not counted."""
    if _THREAD is None:
        return None
    # RUSAGE_CHILDREN is of the whole process, so that commands of other threads would count here.
    _here.commands = (0.0, 0.0, 0, 0)
    own = getrusage(_THREAD)
    return own[0], own[1], 0, own[9], own[10]


def thread_used() -> Used:
    """Return what the calling thread has used, with the commands since ``begin_thread``; of memory nothing.

    Memory belongs to the whole process: how much of it is a thread's cannot be told. Nor can it of a command, whose
    most memory is at least that of this process, which it had for a moment when it was started.
    """
    assert _THREAD is not None
    own, below = getrusage(_THREAD), _here.commands
    return own[0] + below[0], own[1] + below[1], 0, own[9] + below[2], own[10] + below[3]


def add_command(used: struct_rusage) -> None:
    """Add a command that the calling thread has waited for."""
    sums = getattr(_here, "commands", None)
    if sums is not None:
        _here.commands = (sums[0] + used[0], sums[1] + used[1], sums[2] + used[9], sums[3] + used[10])


def usage_between(before: Used, after: Used) -> Usage:
    """Return what was used between two accounts; the memory is that of the second."""
    from flow_core.interfaces.outcome import Usage

    return Usage(after[0] - before[0], after[1] - before[1], after[2], after[3] - before[3], after[4] - before[4])
