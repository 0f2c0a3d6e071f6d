"""What an executor reports of a try: its start, and exactly one outcome."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

from flow_core.interfaces.call import TryKey
from flow_core.loss import Loss as Loss, LossKind as LossKind, Place as Place


class Verdict(IntEnum):
    """How a try ended, which decides whose budget it spends."""

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


@dataclass(frozen=True, slots=True)
class Usage:
    """What a try used, measured by its worker as a difference of rusage (children included).

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


class TryListener(Protocol):
    """Takes reports of tries; implemented by the kernel.

    Called by any thread of an executor, which must hold no lock; never from inside ``submit()``. It never blocks and
    never raises.
    """

    def started(self, tries: Sequence[tuple[TryKey, int, Place]]) -> None:
        """Report that tries began to run, as (key, time in ns UTC, place). Optional for tries shorter than a second."""
        ...

    def finished(self, outcomes: Sequence[Outcome]) -> None:
        """Report the outcomes of tries. Unknown or repeated keys are dropped and counted."""
        ...
