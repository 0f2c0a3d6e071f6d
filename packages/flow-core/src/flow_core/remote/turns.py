"""The turns of a thread that looks at tasks now and then, and rests while there are none."""

from __future__ import annotations

import threading
from collections.abc import Callable

LEAST_S = 0.1
"""Nothing is looked at more often."""
MOST_S = 1.0
_LONGEST_REST_S = 60.0


class Turns:
    """When a thread is to look. ``wake`` and ``end`` may be called by any thread and never block; the rest is its own.

    Attributes:
        resting: Whether it rests, or is about to.
    """

    def __init__(self, interval_s: float) -> None:
        """Let it look as often as samples are taken, but every second at least."""
        self.resting = False
        self._turn_s = min(max(LEAST_S, interval_s), MOST_S)
        self._wake = threading.Event()
        self._stop = threading.Event()

    def next(self) -> bool:
        """Wait for the next turn; False when there is none."""
        return not self._stop.wait(self._turn_s)

    def rest(self, idle: Callable[[], bool]) -> None:
        """Sleep until there is something to do; ``idle`` tells whether there is still nothing."""
        self._wake.clear()
        self.resting = True
        if idle() and not self._stop.is_set():
            self._wake.wait(_LONGEST_REST_S)
        self.resting = False

    def wake(self) -> None:
        """Say that there is something to do."""
        if self.resting:
            self._wake.set()

    def end(self) -> None:
        """Let there be no other turn."""
        self._stop.set()
        self._wake.set()
