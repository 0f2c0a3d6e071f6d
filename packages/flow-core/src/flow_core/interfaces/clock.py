"""Time as a dependency, so that tests can own it."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Two readings of time. Any thread; never blocks."""

    def time_ns(self) -> int:
        """Return wall time in nanoseconds UTC, for records."""
        ...

    def monotonic(self) -> float:
        """Return seconds that never go back, for deadlines."""
        ...


class SystemClock:
    """The machine's own clocks."""

    __slots__ = ()

    time_ns = staticmethod(time.time_ns)
    monotonic = staticmethod(time.monotonic)
