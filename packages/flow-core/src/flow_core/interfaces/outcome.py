"""Outcomes: what an executor reports of a try, its start and exactly one end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

from flow_core.guard import pass_signal
from flow_core.interfaces.call import Call, FileMoved, FileProgress, TryKey
from flow_core.loss import Loss as Loss, LossKind as LossKind, Place as Place


class Verdict(IntEnum):
    """The end of a try by its kind, which decides whose budget it spends."""

    # These numbers travel between processes of Flow, so none gets another meaning.
    OK = 0
    """The function returned; ``Outcome.value`` is its result."""
    APP_ERROR = 1
    """The function, or a step around it, raised; ``Outcome.error`` is the exception. Spends ``retries``."""
    LOST = 2
    """The try may have started and will never report; ``Outcome.loss`` says why. Spends ``infrastructure_retries``."""
    RETURNED = 3
    """The try provably never started. Costs nothing."""
    CANCELLED = 4
    """The try was cancelled by request."""
    REFUSED = 5
    """The try can never run here (does not fit, cannot be pickled); ``Outcome.error`` says why. Not retried here."""
    REQUEUED = 6
    """It was told that its block ends, and is to be made again: ``Outcome.error`` is its Requeue. Costs nothing."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Resource usage of a try, measured by its worker as a difference of rusage (children included).

    CPU times are in seconds, ``max_rss_kb`` in kibibytes.
    """

    cpu_user_s: float = 0.0
    cpu_system_s: float = 0.0
    max_rss_kb: int = 0
    io_read_blocks: int = 0
    io_write_blocks: int = 0


@dataclass(slots=True)
class Outcome:
    """The one final report of a try. Times are int64 nanoseconds UTC, 0 where not known."""

    key: TryKey
    verdict: Verdict
    value: object = None
    error: BaseException | None = None
    loss: Loss | None = None
    place: Place | None = None
    started_ns: int = 0
    ended_ns: int = 0
    usage: Usage | None = None


Ended = tuple[TryKey, Callable[[], Outcome]]
"""A try that has ended, and what makes its outcome (unpickles it); that never raises."""


class TryListener(Protocol):
    """Takes reports of tries; implemented by the kernel.

    Called by any thread of an executor, which must hold no lock; never from inside ``submit()``. It never blocks and
    never raises.
    """

    def started(self, tries: Sequence[tuple[TryKey, int, Place]]) -> None:
        """Report that tries began to run, as (key, time in ns UTC, place). Optional for tries shorter than a second."""
        ...

    def moving(self, key: TryKey, files: Sequence[FileProgress]) -> None:
        """Report how far files are that a try moves on its node. Optional."""
        ...

    def moved(self, call: Call, files: Sequence[FileMoved]) -> None:
        """Report files that an executor itself has moved for what was submitted, or could not. Optional.

        The try may have ended meanwhile: that is told by another way, which may be shorter.
        """
        ...

    def finished(self, outcomes: Sequence[Outcome]) -> None:
        """Report the outcomes of tries. Unknown or repeated keys are dropped and counted."""
        ...

    def ended(self, tries: Sequence[Ended]) -> None:
        """Report tries that have ended, whose outcomes are still to be made, which may call code of the user's.

        What makes an outcome is called once, soon, on another thread, where one that does not return holds up no other.
        """
        ...


# Marks of tuples that hold more than a result; builtin types name no class in a pickle.
_FOUND = "flow: result and names of files that match patterns, 1"
_READ = "flow: versions of files that were read"
_READ_BEFORE = "_flow_read"


def with_read(value: object, read: dict[str, str]) -> object:
    """Return a result with the versions of files that the node brought in for it; in builtin types.

    By their URLs, as ``Staging.look`` says them; by ``Transfer.pin``, as the other side calls them.
    """
    return _READ, read, value


def without_read(value: object) -> tuple[object, dict[str, str]]:
    """Return the result itself, and the versions that came with it, if some did."""
    read: dict[str, str] = {}
    while type(value) is tuple and len(value) == 3 and value[0] == _READ:  # several methods may have added theirs
        read.update(value[1])
        value = value[2]
    return value, read


def report_read(error: BaseException, read: dict[str, str]) -> None:
    """Have an error tell the versions that its try has seen, as far as it takes attributes."""
    if read:
        try:
            object.__getattribute__(error, "__dict__").setdefault(_READ_BEFORE, read)
        except BaseException as failure:
            pass_signal(failure)
            return  # a class of the user's that refuses attributes: the next try looks itself


def read_before(error: BaseException) -> dict[str, str]:
    """Take from an error the versions that it tells."""
    try:
        told: object = object.__getattribute__(error, "__dict__").pop(_READ_BEFORE, None)
    except BaseException as failure:  # of a class of the user's, in the graph's own steps
        pass_signal(failure)
        return {}
    return told if type(told) is dict else {}


def with_found(value: object, found: dict[int, list[str]]) -> object:
    """Return a result with the names of files that match patterns, by the numbers of outputs; in builtin types."""
    return _FOUND, found, value


def without_found(value: object) -> tuple[object, dict[int, list[str]]]:
    """Return the result itself, and the names that came with it, if some did."""
    if type(value) is tuple and len(value) == 3 and value[0] == _FOUND:
        return value[2], value[1]
    return value, {}
