"""Timer of a thread that samples tasks now and then, and rests while there are none."""

from __future__ import annotations

import threading
from collections.abc import Callable

LEAST_S = 0.1
"""Seconds; nothing is looked at more often, whatever interval was asked for."""
MOST_S = 1.0  # seconds; starts of tasks are reported once these have run for a second, so this is often enough
_LONGEST_REST_S = 60.0  # seconds; a bound only: ``wake`` ends a rest


class SamplingTimer:
    """Turns of one thread. ``wake`` and ``end`` may be called by any thread and never block; the rest is its own.

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
        # Set before ``idle`` is asked: a task that begins in between sees it and wakes the thread.
        self.resting = True
        if idle() and not self._stop.is_set():
            self._wake.wait(_LONGEST_REST_S)
        self.resting = False

    def wake(self) -> None:
        """Say that there is something to do."""
        # A plain attribute, since each task asks; to set an event takes a lock.
        if self.resting:
            self._wake.set()

    def end(self) -> None:
        """Let there be no other turn."""
        self._stop.set()
        self._wake.set()
