"""After a restart of the interchange: which tasks managers still hold, and which never arrived anywhere. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum


class Fate(Enum):
    """What is to be done with tasks that nobody claimed."""

    AGAIN = 0
    """They provably never started: every manager that could have them says that it has not. Send them again."""
    LOST = 1
    """A manager that may have them did not come back in time."""


class Reclaim:
    """Collects claims until all managers that were connected are back, or the time is over."""

    __slots__ = ("_deadline", "_expected", "unclaimed")

    def __init__(self, managers: Iterable[str], keys: Iterable[int], deadline: float) -> None:
        self._expected = set(managers)
        self._deadline = deadline
        self.unclaimed = set(keys)

    def registered(self, manager_id: str, held: Iterable[int]) -> None:
        """A manager came, with the keys that it holds."""
        self._expected.discard(manager_id)
        self.unclaimed.difference_update(held)

    def finished(self, keys: Iterable[int]) -> None:
        """Tasks have their outcome."""
        self.unclaimed.difference_update(keys)

    def fate(self, now: float) -> Fate | None:
        """Return what is to be done now with ``unclaimed``; None while it is not known."""
        if not self._expected:
            return Fate.AGAIN
        return Fate.LOST if now >= self._deadline else None

    @property
    def absent(self) -> frozenset[str]:
        """Managers that have not come back."""
        return frozenset(self._expected)

    @property
    def deadline(self) -> float:
        """When waiting ends."""
        return self._deadline
