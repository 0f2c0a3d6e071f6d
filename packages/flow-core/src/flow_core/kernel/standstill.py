"""Standstill of a run, in which nothing happens any more: a warning, once, with all causes."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from flow_core.graph.states import State
from flow_core.interfaces.waiting import CauseKind, duration

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable

    from flow_core.graph.task import Task
    from flow_core.kernel.explaining import Overview
    from flow_core.kernel.reactor import Reactor

QUIET_S = 600.0
"""After so many seconds without a start or an end of any task, and with none that runs, a warning says why."""

Sign = tuple[int, int, int]


def sign_of(reactor: Reactor, held: Callable[[], object]) -> Sign | None:
    """Return numbers that change with any start or end of a task; None while one runs, and where none is waited for.

    ``held`` tells whether calls of apps are held back, which is waited for though no task may be unfinished.
    """
    core = reactor.core
    nobody: tuple[Sign, tuple[Task, ...]] = ((0, 0, 0), ())
    sign, tasks = reactor.call(
        lambda: ((sum(core.counts.values()), core.tries_made, len(core.live)), tuple(core.live.values())), nobody
    )
    if not tasks:
        return sign if held() else None
    return None if any(task.state is State.running for task in tasks) else sign


class Standstill:
    """Notices that a run stands still. One thread looks, as often as it likes.

    Args:
        sign: Gives what ``sign_of`` does.
        overview: Says why the unfinished tasks are not done.
        logger: Takes the warning: one each time that the run comes to a standstill.
        quiet_s: Seconds without a start or an end of a task that make a standstill.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        sign: Callable[[], Sign | None],
        overview: Callable[[], Overview],
        logger: logging.Logger,
        quiet_s: float = QUIET_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sign = sign
        self._overview = overview
        self._logger = logger
        self._quiet_s = quiet_s
        self._clock = clock
        self._last: Sign | None = None
        self._since = 0.0
        self._reported = False

    def look(self) -> None:
        """Look at the run, and warn if it has stood still for long enough."""
        now, sign = self._clock(), self._sign()
        # Anything that happened begins the time anew, so that a later standstill is reported again.
        if sign is None or sign != self._last:
            self._last, self._since, self._reported = sign, now, False
            return
        if self._reported or now - self._since < self._quiet_s:
            return
        overview = self._overview()
        causes = [cause for group in overview.groups for cause in group.sample.causes]
        if any(cause.kind is CauseKind.RUNNING for cause in causes):  # at an executor that reports no starts
            self._since = now
            return
        # Once for each standstill: the look is repeated every minute.
        self._reported = True
        self._logger.warning("No task has started or ended for %s. %s", duration(now - self._since), overview)
