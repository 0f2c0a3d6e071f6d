"""Recovery from failed blocks: when the next is tried, and when that is given up. Pure; times in monotonic seconds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

# Seconds before the first and the longest pause between attempts: soon where a failure passes at once, and no burden
# for a scheduler that is down for hours.
FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 60.0
FRESH_PAUSE_S = 10.0
"""Seconds that a call which comes after the tasks failed waits at most for the next attempt."""
LEAST_ATTEMPTS = 3
"""Fewer failures never end an executor that has worked, however long they take: each may have waited in a queue."""
YOUNG_S = 60.0
"""Seconds: a block that worked for less than this before it was lost did not prove that the next one will live."""
LONGEST_YOUNG_PAUSE_S = 10.0
"""Longest pause in seconds after blocks that connected and died young. With a minute, a run whose blocks were
killed every ten seconds had no worker for forty; a start every 10 s is no burden for a scheduler."""
# Blocks that may die young one after another before their replacement waits.
_FREE_DEATHS = 3
# The middle of the jitter's range: pauses as they are, for tests and simulations.
_EVEN = 0.5


def _no_jitter() -> float:
    return _EVEN


@dataclass(slots=True)
class RecoveryPolicy:
    """The failures of one executor's blocks in a row, and what follows from them.

    A failure is a block that could not be submitted, or ended, or was given up, without having connected. Pauses
    between attempts grow from one second to a minute, and shrink to nothing with the first block that connects.

    Attributes:
        first_blocks: Failures in a row that end an executor none of whose blocks ever connected.
        within_s: How long tasks of one that has worked wait for a block before they fail.
        jitter: Gives numbers from 0 to 1, so that executors that failed together do not try together.
        worked: Whether a block ever connected.
        attempts: Failures in a row since the last error.
        last_error: What went wrong last.
        next_at: When another block may be tried.
        away_until: When a host may be tried that is known to be away; none is tried before.
        told: Whether tasks failed with the error since a block last connected.
        young: Blocks in a row that were gone soon after they had connected.
    """

    first_blocks: int
    within_s: float = 600.0
    jitter: Callable[[], float] = _no_jitter
    worked: bool = False
    attempts: int = 0
    last_error: str = ""
    next_at: float = 0.0
    away_until: float = 0.0
    told: bool = False
    young: int = 0
    _in_a_row: int = 0
    _failed_at: float = 0.0
    _wanted_since: float | None = None

    def failed(self, error: str, now: float) -> None:
        """Count a failed attempt to start a block, and put off the next one."""
        self.attempts += 1
        self._in_a_row += 1
        self.last_error = error
        self._failed_at = now
        self.next_at = now + self._pause(self._in_a_row)

    def put_off(self, until: float) -> None:
        """Put the next attempt off without counting one: nothing was tried."""
        self.away_until = until

    def resume(self) -> None:
        """Let the next attempt be made when it is due by itself: another host may take it."""
        self.away_until = 0.0

    def succeeded(self) -> None:
        """Take in that a block connected: failures before it count no more."""
        self.worked, self.told = True, False
        self.attempts = self._in_a_row = 0
        self.last_error = ""
        self.next_at = 0.0

    def lost(self, lived_s: float, now: float, well: bool = False) -> None:
        """A block that had connected is gone unasked, ``lived_s`` seconds after that; ``well``: no failure ended it."""
        self.young = self.young + 1 if lived_s < YOUNG_S else 0
        if self.young > _FREE_DEATHS:
            # Blocks may have short walltimes: where they end well there is nothing to wait for but their scheduler.
            longest_s = FIRST_PAUSE_S if well else LONGEST_YOUNG_PAUSE_S
            self.next_at = max(self.next_at, now + self._pause(self.young - _FREE_DEATHS, longest_s))

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
        return now >= max(self.next_at, self.away_until)

    def exhausted(self, now: float) -> bool:
        """Whether enough was tried, provided that nothing is under way any more."""
        if not self.worked:
            # Where hosts are known to be away, as many attempts would need minutes, and say no more.
            return self.attempts >= (1 if self.told or self.away_until else self.first_blocks)
        return self.attempts >= LEAST_ATTEMPTS and self.waited_s(now) >= self.within_s

    def waited_s(self, now: float) -> float:
        """Return for how long tasks have waited with no block connected."""
        return 0.0 if self._wanted_since is None else now - self._wanted_since

    def give_up(self) -> None:
        """Note that all tasks failed with the error. Those that come later make a fresh attempt."""
        self.told = True
        self.attempts = 0
        self._wanted_since = None

    def _pause(self, count: int, at_most_s: float = LONGEST_PAUSE_S) -> float:
        longest: float = min(at_most_s, FIRST_PAUSE_S * 2.0 ** min(count - 1, 10))
        # A quarter more or less, so that executors that failed together do not come back together.
        return longest * (0.75 + 0.5 * self.jitter())
