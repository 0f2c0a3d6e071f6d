"""The built-in strategies, the formula for parallelism, and the calls of strategies and handlers of the user's own.

A strategy is a pure function from what is seen to blocks to add (positive) or to release (negative).
"""

from __future__ import annotations

import logging
import math
import operator
from collections.abc import Mapping
from typing import Final

from flow_core.errors import ConfigurationError, ExecutorBroken
from flow_core.guard import called, named, to_log
from flow_core.interfaces.scaling import BlockLimits, ScalingView, Strategy
from flow_core.option_records import nearest
from flow_executors.scaling.failures import failure_text
from flow_executors.scaling.user_calls import UserCalls
from flow_providers.interfaces.job_status import JobStatus

_CRUMB = 1e-9  # 6 x 0.5 / 3 must not round up


def wanted_blocks(active: int, slots_per_block: int, limits: BlockLimits) -> int:
    """Return the number of blocks for so many active tasks: ``ceil(active x parallelism / slots of a block)``.

    Never fewer than ``min_blocks``, nor more than ``max_blocks``; at least one while anything is active, however small
    the parallelism. While it is not known what a block brings, one is enough to find out.

    Args:
        active: Tasks that wait or run.
        slots_per_block: Tasks that one block runs at once; 0 where not known yet.
        limits: The executor's bounds.
    """
    needed = 0
    if active > 0:
        needed = math.ceil(active * limits.parallelism / slots_per_block - _CRUMB) if slots_per_block else 1
        needed = max(needed, 1)
    return min(limits.max_blocks, max(limits.min_blocks, needed))


def none(view: ScalingView) -> int:
    """Never change anything: the first blocks are all there is."""
    return 0


def simple(view: ScalingView) -> int:
    """Add blocks as tasks need them; release them when nothing at all has been active for the idle time."""
    return _missing(view) or (0 if _active(view) else -_idle_beyond(view, view.limits.min_blocks))


def htex_auto_scale(view: ScalingView) -> int:
    """As ``simple``, and release single blocks that have been idle for the idle time while others work."""
    if not view.partial_release:
        return simple(view)
    return _missing(view) or -_idle_beyond(view, _wanted(view))


def strategy_of(name: str | Strategy | None) -> Strategy:
    """Return a strategy by its name, or the user's own.

    Raises:
        ConfigurationError: there is none of that name.
    """
    if callable(name):
        return name
    if name is None:
        return none
    if name not in BUILT_IN:
        near = nearest(name, BUILT_IN)
        hint = f": did you mean {near!r}?" if near else ""
        raise ConfigurationError(f"strategy={name!r} is not known{hint} Known: {', '.join(BUILT_IN)}, or a function")
    return BUILT_IN[name]


BUILT_IN: Final[Mapping[str, Strategy]] = {"none": none, "simple": simple, "htex_auto_scale": htex_auto_scale}


def _active(view: ScalingView) -> int:
    return view.load.waiting + view.load.running


def _wanted(view: ScalingView) -> int:
    return wanted_blocks(_active(view), view.load.slots_per_block, view.limits)


def _missing(view: ScalingView) -> int:
    return max(0, _wanted(view) - view.active_blocks)


def _idle_beyond(view: ScalingView, kept: int) -> int:
    """Blocks beyond those to keep that have been idle for long enough."""
    idle = sum(1 for seconds in view.idle_for_s if seconds >= view.max_idletime_s)
    return max(0, min(idle, view.active_blocks - kept))


# Seconds that a strategy of the user's may take: it holds up each turn of the scaling.
_STRATEGY_S = 10.0
# Seconds that a block_error_handler may take, as its description promises; it is asked once a failure.
_HANDLER_S = 60.0


class StrategyCalls:
    """Asks the user's functions on threads of their own. The scaling thread only.

    Args:
        label: The executor.
        strategy: Returns how many blocks to add or to release.
        handler: Decides what becomes of tasks when blocks fail: True, False, or a function.
        logger: Gets a warning when a function fails, once for each reason.
    """

    def __init__(self, label: str, strategy: Strategy, handler: object, logger: logging.Logger) -> None:
        self._label = label
        self._strategy = strategy
        self._trusted = any(strategy is one for one in BUILT_IN.values())
        self._handler = handler
        self._log = logger
        self._calls = UserCalls(f"flow-advice-{label}")
        self.problem = ""
        """What is wrong with the strategy; empty while it works."""

    @property
    def never_ends(self) -> bool:
        """Whether failed blocks are never to end the executor."""
        return self._handler is False

    def slow(self) -> list[str]:
        """Return calls of these functions that are waited for and take long, each as a clause. Any thread."""
        return self._calls.slow()

    def change(self, view: ScalingView) -> int:
        """Return the strategy's answer; that of ``simple`` where it is none that can be used."""
        # Our own are called directly: a thread a turn would be for nothing.
        if self._trusted:
            return self._strategy(view)
        try:
            answer = self._calls.call(
                f"the strategy {called(self._strategy)}()", lambda: self._strategy(view), _STRATEGY_S
            )
            change = operator.index(answer)
        except BaseException as error:
            self._complain(error)
            return simple(view)
        self.problem = ""
        return change

    def _complain(self, error: BaseException) -> None:
        problem = f"the strategy {self._strategy!r:.100} of {self._label} failed ({named(error)})"
        if problem != self.problem:
            self.problem = problem
            self._log.warning("%s: 'simple' decides instead", problem, exc_info=to_log(error))

    def verdict(self, host: object, failed: Mapping[str, JobStatus], error: ExecutorBroken) -> ExecutorBroken | None:
        """Return the error that the tasks get; None: go on trying."""
        handler = self._handler
        if not callable(handler):
            return error
        try:
            answer = self._calls.call(
                f"the block_error_handler {called(handler)}()", lambda: handler(host, dict(failed)), _HANDLER_S
            )
        except BaseException as fault:
            return failure_text(f"{error}\nIts block_error_handler {handler!r:.100} failed: {named(fault)}", fault)
        if answer is None:
            return None
        if isinstance(answer, BaseException):
            return failure_text(named(answer) if not isinstance(answer, ExecutorBroken) else str(answer), answer)
        return failure_text(
            f"{error}\nIts block_error_handler returned {answer!r:.100}: neither an error nor None", error
        )
