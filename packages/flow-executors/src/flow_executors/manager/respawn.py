"""When a dead worker is replaced, and when it is of no use to try again. Pure."""

from __future__ import annotations

_PATIENCE = 3
_PAUSES_S = (0.0, 0.5, 1.0)


class Respawn:
    """Counts the workers that died before they were ready, one after another."""

    __slots__ = ("_due", "_failures")

    def __init__(self) -> None:
        self._failures = 0
        self._due: dict[int, float] = {}

    def ready(self) -> None:
        """A worker became ready: all is well."""
        self._failures = 0

    def died(self, rank: int, was_ready: bool, now: float) -> bool:
        """A worker died, or could not be forked: note when to replace it. False when that has no prospect."""
        if not was_ready:
            self._failures += 1
        if self._failures >= _PATIENCE:
            return False
        self._due[rank] = now + _PAUSES_S[self._failures]
        return True

    def due(self, now: float) -> list[int]:
        """Return the ranks to start now, once."""
        ranks = [rank for rank, when in self._due.items() if when <= now]
        for rank in ranks:
            del self._due[rank]
        return ranks

    def deadline(self) -> float | None:
        """Return when the next one is due."""
        return min(self._due.values()) if self._due else None
