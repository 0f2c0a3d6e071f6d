"""Whether an engine answers: it is asked on a thread of its own, so that nobody waits for one that hangs."""

from __future__ import annotations

import time
from collections.abc import Callable

from flow_core.bounded_calls import BoundedCall
from flow_core.guard import pass_signal

SILENT_S = 20.0  # seconds without an answer after which an engine counts as gone
# Most seconds that count between two looks: a script that was stopped itself has not been told nothing.
_COUNTED_S = 2.0


class Answers:
    """Asks an engine again and again, one question at a time, and counts the seconds for which it is silent.

    Every end of a question is an answer but an ``OSError``, which is what a connection says. For one caller.

    Args:
        ask: Asks the engine, and returns when it has answered.
        name: Name of the threads.
        every_s: Seconds between an answer and the next question.
        clock: Where the time comes from.
    """

    def __init__(
        self, ask: Callable[[], object], name: str, every_s: float = 1.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._ask = ask
        self._name = name
        self._every_s = every_s
        self._clock = clock
        self._open: BoundedCall[object] | None = None
        self._asked_at = self._looked_at = clock() - every_s
        self._silent_s = 0.0

    def silent_s(self) -> float:
        """Ask, unless a question is open; return for how many seconds none was answered. To be called often."""
        now = self._clock()
        if self._open is not None:
            self._silent_s += min(now - self._looked_at, _COUNTED_S)
            if self._open.done:
                if self._answered(self._open):
                    self._silent_s = 0.0
                self._open = None
        self._looked_at = now
        if self._open is None and now - self._asked_at >= self._every_s:
            self._asked_at = now
            self._open = BoundedCall(self._name, self._ask)
        return self._silent_s

    def _answered(self, question: BoundedCall[object]) -> bool:
        try:
            question.wait(0.0)
        except OSError:
            return False
        except BaseException as error:
            pass_signal(error)
        return True
