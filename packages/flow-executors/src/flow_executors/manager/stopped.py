"""Workers that are stopped: seen at one look after another, told to go on once, then replaced. Pure.

A worker counts as stopped while it is in state T or t (SIGSTOP, SIGTSTP, a debugger), or all that its task has started
is, and none of them uses CPU time. A worker that waits for a file system (state D) is named and left alone: it goes on
by itself, and to kill it would not end it sooner.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

LOOKS = 8
"""Looks within the time after which a worker is replaced."""
_SHORTEST_S, _LONGEST_S = 0.5, 15.0
_MISSED = 3


class Sight(NamedTuple):
    """What was seen of a worker.

    Attributes:
        rank: Its number.
        pid: Its process.
        key: The task that it runs, -1 for none.
        state: Its state, or that of all its task's processes where they are stopped.
        ticks: CPU time that it and its task's processes have used, in any unit.
        stopped: The stopped processes, itself among them or not.
    """

    rank: int
    pid: int
    key: int
    state: str
    ticks: int
    stopped: tuple[int, ...] = ()


class Act(Enum):
    """What is to be done about a worker."""

    CONTINUE = 0
    """Tell its stopped processes to go on."""
    REPLACE = 1
    """Kill it; its task is lost."""
    NAME = 2
    """Say that it waits in the kernel."""


class Finding(NamedTuple):
    """What is to be done about which worker, and for how many seconds it has been stopped."""

    act: Act
    sight: Sight
    for_s: float


@dataclass(slots=True)
class _Case:
    pid: int
    key: int
    state: str
    ticks: int
    since: float
    named: bool = False


def pause_s(bound_s: float) -> float:
    """Return how many seconds there are between two looks."""
    return min(_LONGEST_S, max(_SHORTEST_S, bound_s / LOOKS))


class Stopped:
    """Which workers have been stopped for how long. One thread.

    Args:
        bound_s: Seconds after which one that does not go on is replaced; it is told to go on after half of them.
    """

    def __init__(self, bound_s: float) -> None:
        self.bound_s = bound_s
        self._cases: dict[int, _Case] = {}
        self._told: dict[int, tuple[int, int]] = {}  # rank -> pid and key that was told to go on
        self._last: float | None = None

    def look(self, sights: Sequence[Sight], now: float) -> list[Finding]:
        """Take in what all workers look like now; return what is to be done."""
        if self._last is not None and now - self._last > _MISSED * pause_s(self.bound_s):
            self._cases.clear()  # this process was stopped, too: as when a whole job is suspended
        self._last = now
        self._cases = {sight.rank: self._case(sight, now) for sight in sights if sight.stopped or sight.state == "D"}
        found = (self._finding(sight, self._cases[sight.rank], now) for sight in sights if sight.rank in self._cases)
        return [finding for finding in found if finding is not None]

    def _case(self, sight: Sight, now: float) -> _Case:
        case = self._cases.get(sight.rank)
        same = case is not None and (case.pid, case.key, case.state, case.ticks) == sight[1:5]
        return case if same and case is not None else _Case(*sight[1:5], now)

    def _finding(self, sight: Sight, case: _Case, now: float) -> Finding | None:
        for_s = now - case.since
        if not sight.stopped:
            if for_s < self.bound_s or case.named:
                return None
            case.named = True
            return Finding(Act.NAME, sight, for_s)
        who = sight.pid, sight.key
        if for_s >= self.bound_s:
            del self._cases[sight.rank]
            return Finding(Act.REPLACE, sight, for_s)
        if for_s >= self.bound_s / 2 and self._told.get(sight.rank) != who:
            self._told[sight.rank] = who
            return Finding(Act.CONTINUE, sight, for_s)
        return None


class Silence:
    """Whether somebody who is asked again and again answers within a bound. One thread."""

    def __init__(self, bound_s: float) -> None:
        self.bound_s = bound_s
        self._asked: float | None = None
        self._last: float | None = None

    def asked(self, now: float) -> None:
        """It was asked."""
        if self._last is not None and now - self._last > _MISSED * pause_s(self.bound_s):
            self._asked = None  # this process was stopped: nobody is silent by that
        self._last = now
        if self._asked is None:
            self._asked = now

    def answered(self) -> None:
        """It has answered."""
        self._asked = None

    def for_s(self, now: float) -> float:
        """Return for how long it has not answered."""
        return 0.0 if self._asked is None else now - self._asked
