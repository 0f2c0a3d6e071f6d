"""Pauses in which this process did not run: it was stopped, or its machine slept. What was silent then may be well."""

from __future__ import annotations

import time
from collections.abc import Callable

_SLEPT_S = 2.0
"""Seconds beyond a planned wake-up after which this process was stopped, and not only late."""


def _asleep_s() -> float:
    # The first of these clocks goes on while the machine sleeps, the second does not.
    return time.clock_gettime(time.CLOCK_BOOTTIME) - time.monotonic()


class Pauses:
    """Finds out how long this process was away. One thread.

    Args:
        asleep_s: Returns for how many seconds the machine has slept in all.
    """

    __slots__ = ("_asleep_s", "_known_s")

    def __init__(self, asleep_s: Callable[[], float] = _asleep_s) -> None:
        self._asleep_s = asleep_s
        self._known_s = asleep_s()

    def away_s(self, late_s: float) -> float:
        """Return for how many seconds this process did not run since the last call; 0 where it did.

        ``late_s``: by how much the last wait took longer than was planned, by the monotonic clock. That shows a process
        that was stopped, and a virtual machine; a machine that slept shows by its clocks alone.
        """
        asleep_s = self._asleep_s()
        slept_s, self._known_s = asleep_s - self._known_s, asleep_s
        away_s = max(late_s, 0.0) + max(slept_s, 0.0)
        return away_s if away_s > _SLEPT_S else 0.0
