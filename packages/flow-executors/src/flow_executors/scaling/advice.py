"""What is asked of the user's own functions, a strategy and a block error handler, whatever they do."""

from __future__ import annotations

import logging
import operator
from collections.abc import Mapping

from flow_core.errors import ExecutorBroken
from flow_core.guard import named
from flow_core.interfaces.scaling import ScalingView, Strategy
from flow_executors.scaling.failures import give_up
from flow_executors.scaling.foreign import ForeignCalls
from flow_executors.scaling.strategies import BUILT_IN, simple
from flow_providers.interfaces.job_status import JobStatus

_STRATEGY_S = 10.0
_HANDLER_S = 60.0


class Advice:
    """Asks the user's functions on threads of their own. The scaling thread only.

    Args:
        label: The executor.
        strategy: Says how many blocks to add or to release.
        handler: Decides what becomes of tasks when blocks fail: True, False, or a function.
        logger: Is told when a function is of no use, once for each reason.
    """

    def __init__(self, label: str, strategy: Strategy, handler: object, logger: logging.Logger) -> None:
        self._label = label
        self._strategy = strategy
        self._trusted = any(strategy is one for one in BUILT_IN.values())
        self._handler = handler
        self._log = logger
        self._calls = ForeignCalls(f"flow-advice-{label}")
        self.problem = ""
        """What is wrong with the strategy; empty while it works."""

    @property
    def never_ends(self) -> bool:
        """Whether failed blocks are never to end the executor."""
        return self._handler is False

    def change(self, view: ScalingView) -> int:
        """Return what the strategy says; what ``simple`` says where that is nothing one can use."""
        if self._trusted:
            return self._strategy(view)
        try:
            answer = self._calls.call("the strategy", lambda: self._strategy(view), _STRATEGY_S)
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
            self._log.warning("%s: 'simple' decides instead", problem, exc_info=error)

    def verdict(self, host: object, failed: Mapping[str, JobStatus], error: ExecutorBroken) -> ExecutorBroken | None:
        """Return the error that the tasks get; None: go on trying."""
        handler = self._handler
        if not callable(handler):
            return error
        try:
            answer = self._calls.call("the block_error_handler", lambda: handler(host, dict(failed)), _HANDLER_S)
        except BaseException as fault:
            return give_up(f"{error}\nIts block_error_handler {handler!r:.100} failed: {named(fault)}", fault)
        if answer is None:
            return None
        if isinstance(answer, BaseException):
            return give_up(named(answer) if not isinstance(answer, ExecutorBroken) else str(answer), answer)
        return give_up(f"{error}\nIts block_error_handler returned {answer!r:.100}: neither an error nor None", error)
