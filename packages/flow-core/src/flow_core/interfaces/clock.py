"""Clock as a dependency, so that tests can set the time."""

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

    # The functions of the module themselves, so that a reading costs no further call of Python.
    time_ns = staticmethod(time.time_ns)
    monotonic = staticmethod(time.monotonic)
