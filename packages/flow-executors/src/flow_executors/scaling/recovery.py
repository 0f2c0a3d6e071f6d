"""When another block is tried after some have failed, and when that is given up: pure. Times in monotonic seconds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 60.0
FRESH_PAUSE_S = 10.0
"""Longest wait of a call that comes after the failure was told."""
LEAST_ATTEMPTS = 3
"""Fewer failures never end an executor that has worked, however long they take: each may have waited in a queue."""
YOUNG_S = 60.0
"""A block that worked for less than this before it was lost did not prove that the next one will live."""
_FREE_DEATHS = 3
"""Blocks that may die young one after another before their replacement waits."""
_EVEN = 0.5


def _no_jitter() -> float:
    return _EVEN


@dataclass(slots=True)
class Recovery:
    """The failures of one executor's blocks in a row, and what follows from them.

    A failure is a block that could not be submitted, or ended, or was given up, without having connected. Pauses
    between attempts grow from one second to a minute, and shrink to nothing with the first block that connects.

    Attributes:
        first_blocks: Failures in a row that end an executor none of whose blocks ever connected.
        within_s: How long tasks of one that has worked wait for a block before they fail.
        jitter: Gives numbers from 0 to 1, so that executors that failed together do not try together.
        worked: Whether a block ever connected.
        attempts: Failures in a row, since the last were told.
        last_error: What went wrong last.
        next_at: When another block may be tried.
        told: Whether tasks were told that there is no hope, since a block last connected.
    """

    first_blocks: int
    within_s: float = 600.0
    jitter: Callable[[], float] = _no_jitter
    worked: bool = False
    attempts: int = 0
    last_error: str = ""
    next_at: float = 0.0
    told: bool = False
    _in_a_row: int = 0
    _failed_at: float = 0.0
    _young: int = 0
    _wanted_since: float | None = None

    def failed(self, error: str, now: float) -> None:
        """An attempt failed."""
        self.attempts += 1
        self._in_a_row += 1
        self.last_error = error
        self._failed_at = now
        self.next_at = now + self._pause(self._in_a_row)

    def succeeded(self) -> None:
        """A block connected."""
        self.worked, self.told = True, False
        self.attempts = self._in_a_row = 0
        self.last_error = ""
        self.next_at = 0.0

    def lost(self, lived_s: float, now: float) -> None:
        """A block that had connected is gone unasked, ``lived_s`` seconds after that."""
        self._young = self._young + 1 if lived_s < YOUNG_S else 0
        if self._young > _FREE_DEATHS:
            self.next_at = max(self.next_at, now + self._pause(self._young - _FREE_DEATHS))

    def looked(self, waiting: bool, connected: bool, now: float) -> None:
        """Take in whether tasks wait, and whether any block is connected."""
        if connected or not waiting:
            self._wanted_since = None
        elif self._wanted_since is None:
            self._wanted_since = now
        if self.told and waiting:
            self.next_at = min(self.next_at, self._failed_at + FRESH_PAUSE_S)

    def may_try(self, now: float) -> bool:
        """Whether another block may be asked for."""
        return now >= self.next_at

    def exhausted(self, now: float) -> bool:
        """Whether enough was tried, provided that nothing is under way any more."""
        if not self.worked:
            return self.attempts >= (1 if self.told else self.first_blocks)
        return self.attempts >= LEAST_ATTEMPTS and self.waited_s(now) >= self.within_s

    def waited_s(self, now: float) -> float:
        """Return for how long tasks have waited with no block connected."""
        return 0.0 if self._wanted_since is None else now - self._wanted_since

    def give_up(self) -> None:
        """The tasks were told. Those that come later make a fresh attempt."""
        self.told = True
        self.attempts = 0
        self._wanted_since = None

    def _pause(self, count: int) -> float:
        longest: float = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(count - 1, 10))
        return longest * (0.75 + 0.5 * self.jitter())
