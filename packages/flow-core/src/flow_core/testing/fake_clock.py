"""Fake clock for tests: it stands still until the test advances it."""

from __future__ import annotations

from threading import Lock


class FakeClock:
    """A Clock that stands still until it is moved. Thread-safe."""

    def __init__(self, *, time_ns: int = 1_700_000_000_000_000_000, monotonic: float = 1000.0) -> None:
        """Begin at a wall time (ns UTC) and a monotonic time (seconds)."""
        # Threads of the code under test read it while the test moves it.
        self._lock = Lock()
        self._time_ns = time_ns
        self._monotonic = monotonic

    def time_ns(self) -> int:
        """Return wall time in nanoseconds UTC."""
        with self._lock:
            return self._time_ns

    def monotonic(self) -> float:
        """Return seconds that never go back."""
        with self._lock:
            return self._monotonic

    def advance(self, seconds: float) -> None:
        """Move both times forward. Raises ValueError for a negative step."""
        if seconds < 0:
            raise ValueError(f"a clock cannot advance by {seconds} s; use step_wall for a wall clock set back")
        with self._lock:
            self._monotonic += seconds
            self._time_ns += round(seconds * 1e9)

    def step_wall(self, seconds: float) -> None:
        """Set the wall time forward or back, as an administrator would; monotonic time is not touched."""
        with self._lock:
            self._time_ns += round(seconds * 1e9)
