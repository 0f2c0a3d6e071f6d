"""Full thread pools: all threads are occupied by tasks that do nothing, while others wait for a thread.

A task that waits for another task gives its thread up meanwhile, but only where Flow sees the wait. One that waits by a
thread of its own, or looks at ``done()`` from time to time, keeps it: if all do, and wait for tasks behind them, none
will ever end. So do tasks that wait for something outside, for good reason; hence a warning, and no more.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from flow_core.executors.nested import ADVICE
from flow_core.hooks import where_in_users_code
from flow_core.interfaces.waiting import count, duration

QUIET_S = 120.0
"""Seconds for which the tasks must be the same, and use no CPU time to speak of; then a warning comes, and no more."""
_IDLE_SHARE = 0.02  # of that time; a loop that looks at done() uses a little
_SHOWN = 3  # tasks that the warning names
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Occupant:
    """A task that occupies a thread.

    Attributes:
        who: Name of the task.
        thread: Identity of the thread.
        native: Its number in the system.
    """

    who: str
    thread: int
    native: int


class FullPool:
    """Notices such a pool. One thread looks, as often as it likes.

    Args:
        label: Label of the executor.
        quiet_s: Seconds for which the tasks must be the same and idle.
        clock: Monotonic seconds.
        cpu_s: Gives the CPU seconds that a thread has used, by its number in the system; None where not known.
    """

    def __init__(
        self,
        label: str,
        quiet_s: float = QUIET_S,
        clock: Callable[[], float] = time.monotonic,
        cpu_s: Callable[[int], float | None] | None = None,
    ) -> None:
        self._label = label
        self._quiet_s = quiet_s
        self._clock = clock
        self._cpu_s = cpu_s or thread_cpu_s
        self._keys: frozenset[int] = frozenset()
        self._used: dict[int, float | None] = {}
        self._since = 0.0
        self._reported = False

    def look(self, occupants: Mapping[int, Occupant], waiting: int, threads: int) -> str:
        """Look at the tasks that occupy threads, by key; return what to warn of, once, or nothing."""
        now, keys = self._clock(), frozenset(occupants)
        if not waiting or len(occupants) < threads:
            # Nothing waits, or a thread is free: then there is no such pool, and the time begins anew.
            keys = frozenset()
        if keys != self._keys or not keys:
            self._begin(keys, occupants, now)
            return ""
        passed_s = now - self._since
        if self._reported or passed_s < self._quiet_s:
            return ""
        if not all(self._idle(key, one, passed_s) for key, one in occupants.items()):
            self._begin(keys, occupants, now)
            return ""
        self._reported = True
        return self._text(list(occupants.values()), waiting, passed_s)

    def _begin(self, keys: frozenset[int], occupants: Mapping[int, Occupant], now: float) -> None:
        self._keys, self._since, self._reported = keys, now, False
        self._used = {key: self._cpu_s(occupants[key].native) for key in keys}

    def _idle(self, key: int, one: Occupant, passed_s: float) -> bool:
        before, used = self._used.get(key), self._cpu_s(one.native)
        return before is not None and used is not None and used - before < _IDLE_SHARE * passed_s

    def _text(self, occupants: Sequence[Occupant], waiting: int, passed_s: float) -> str:
        named = "; ".join(f"{one.who}{where_in_users_code(one.thread)}" for one in occupants[:_SHOWN])
        more = f"; and {len(occupants) - _SHOWN} more" if len(occupants) > _SHOWN else ""
        waits = count(waiting, "task waits", "tasks wait")
        return (
            f"No task of executor {self._label!r} has ended for {duration(passed_s)}: {waits} for a thread, and those "
            f"that occupy all of them use no CPU time: {named}{more}. If they wait for tasks behind them, by threads "
            "of their own or by looking at done(), they wait for ever: call result() in the task itself, or raise "
            f"max_threads. {ADVICE}"
        )


def thread_cpu_s(native: int) -> float | None:
    """Return the CPU seconds that a thread of this process has used; None where the system does not say."""
    try:
        with open(f"/proc/self/task/{native}/stat", "rb") as stat:
            # The name of a thread, in brackets, may hold blanks and brackets.
            fields = stat.read().rpartition(b")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S
    except (OSError, IndexError, ValueError):
        return None
