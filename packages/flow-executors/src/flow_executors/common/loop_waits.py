"""How the loop of a process waits: by busy polling, and with an eye on pauses in which the process did not run.

Busy polling looks without sleeping while tasks are out and events come fast, where no other process wants the CPU.

On a machine whose CPUs are all wanted a process that spins delays those that it waits for. The scheduler shows it: it
then takes the CPU away from this one again and again.
"""

from __future__ import annotations

import time
from collections.abc import Callable

# Seconds after an event for which the next one is awaited without sleeping: with 300 us a round trip took 0.21 ms
# instead of 0.35.
_AFTER_S = 0.0003
# Share of each window that may be spent so.
_SHARE = 0.1
# Seconds of the window.
_WINDOW_S = 1.0
# Seconds between two judgements whether it pays.
_TRIAL_S = 0.05
# Seconds for which it is given up where it does not: two processes that spin on two cores are slower than none.
_PENALTY_S = 10.0
# Preemptions a spin above which others want the CPU.
_PREEMPTED = 0.05


class BusyPoll:
    """A budget of spinning: up to 300 us after an event, at most a share of each second, never with one CPU.

    Args:
        cpus: CPUs of the machine.
        preemptions: Returns how often the scheduler has taken the CPU from this process so far.
        share: Most of each second that may be spent so.
    """

    __slots__ = (
        "_busy",
        "_cpus",
        "_judged",
        "_last_event",
        "_preemptions",
        "_seen",
        "_share",
        "_spent",
        "_spins",
        "_started",
        "_until",
        "_window",
    )

    def __init__(self, cpus: int, preemptions: Callable[[], int], share: float = _SHARE) -> None:
        self._cpus = cpus
        self._share = share
        self._preemptions = preemptions
        self._seen = preemptions()
        self._last_event = 0.0
        self._busy = False
        self._window = 0.0
        self._judged = 0.0
        self._spent = 0.0
        self._spins = 0
        self._started = 0.0
        self._until = 0.0

    def wanted(self, now: float) -> bool:
        """Whether the next look should not sleep."""
        if self._cpus < 2 or not self._busy or now < self._until or now - self._last_event > _AFTER_S:
            return False
        if now - self._window > _WINDOW_S:
            self._window, self._spent = now, 0.0
        if now - self._judged > _TRIAL_S and not self._pays(now):
            return False
        if self._spent > self._share * _WINDOW_S:
            return False
        self._started = now
        return True

    def _pays(self, now: float) -> bool:
        """Judge the last spins by how often the CPU was taken away; stop for a while if that was often."""
        self._judged = now
        before, self._seen = self._seen, self._preemptions()
        spins, self._spins = self._spins, 0
        if spins > 10 and self._seen - before > max(2, _PREEMPTED * spins):
            self._until = now + _PENALTY_S
            return False
        return True

    def after(self, now: float, event: bool, busy: bool) -> None:
        """Note how a look ended: whether something was there, and whether tasks are out."""
        if self._started:
            self._spent += max(0.0, now - self._started)
            self._started = 0.0
            self._spins += 1
        if event:
            self._last_event = now
        self._busy = busy


_SLEPT_S = 2.0
"""Seconds beyond a planned wake-up after which this process was stopped, and not only late."""


# Seconds between two looks at the clocks.
_LOOK_S = 0.2


def _asleep_s() -> float:
    # The first of these clocks goes on while the machine sleeps, the second does not.
    return time.clock_gettime(time.CLOCK_BOOTTIME) - time.monotonic()


class Pauses:
    """Finds out how long this process was away. One thread.

    Args:
        asleep_s: Returns for how many seconds the machine has slept in all.
    """

    __slots__ = ("_asleep_s", "_known_s", "_look_at")

    def __init__(self, asleep_s: Callable[[], float] = _asleep_s) -> None:
        self._asleep_s = asleep_s
        self._known_s = asleep_s()
        self._look_at = 0.0

    def away_s(self, late_s: float, now: float) -> float:
        """Return for how many seconds this process did not run since the last call; 0 where it did.

        Args:
            late_s: By how much the last wait took longer than was planned, by the monotonic clock. That shows a process
                that was stopped, and a virtual machine; a machine that slept shows by its clocks alone.
            now: The time by that clock, which is asked for in each turn of loops: the others are read seldom.
        """
        if late_s <= 0 and now < self._look_at:
            return 0.0
        self._look_at = now + _LOOK_S
        asleep_s = self._asleep_s()
        slept_s, self._known_s = asleep_s - self._known_s, asleep_s
        away_s = max(late_s, 0.0) + max(slept_s, 0.0)
        return away_s if away_s > _SLEPT_S else 0.0
