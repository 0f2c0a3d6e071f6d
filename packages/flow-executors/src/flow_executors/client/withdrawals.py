"""Withdrawals: the script asks whether a task that it cancels has begun, and waits a moment for the answer.

The interchange, or the manager that has the task, cancels it and says so, or says that it runs. Who cancels thousands
of tasks one by one over a slow link, or while a manager is silent, must not wait for each: so there is a bound for one
answer and one for all of them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Container, Iterable, MutableMapping
from dataclasses import dataclass, field

_ANSWER_S = 1.0
"""Seconds for one answer: the interchange and a manager that are well take a round trip, and the time of a look at a
worker's pipe."""
_MOST_S = 5.0
"""Seconds of waiting in a row for all answers; more are not asked for then."""
_REFILL = 0.5
"""Seconds of waiting that a second without any gives back."""


@dataclass(slots=True)
class _Asked:
    answered: threading.Event = field(default_factory=threading.Event)
    begun: bool = False


class Withdrawals:
    """Tries of one client whose withdrawal is waited for. Any thread asks, the receiver answers.

    Args:
        cancelled: Keys that are to be cancelled, also by a manager that comes back; one that has begun is taken out.
        clock: Gives the time in seconds.
    """

    def __init__(self, cancelled: MutableMapping[int, bool], clock: Callable[[], float] = time.monotonic) -> None:
        self._cancelled = cancelled
        self._clock = clock
        self._lock = threading.Lock()
        self._left_s, self._since = _MOST_S, clock()
        self.waiting: dict[int, _Asked] = {}
        """Keys that somebody waits for; the receiver calls ``settle`` while there are any."""

    def ask(self, key: int, known: Container[int], send: Callable[[], None]) -> bool | None:
        """Send the request and wait for what becomes of a try.

        Returns:
            False if it has begun; None if it was cancelled or has ended, which is reported, or if nobody says in time.
        """
        patience_s = min(_ANSWER_S, self._left())
        if patience_s <= 0.0:
            return None
        asked = self.waiting.setdefault(key, _Asked())
        began = self._clock()
        send()
        if key in known:
            asked.answered.wait(patience_s)
        self.waiting.pop(key, None)
        with self._lock:
            self._since = now = self._clock()
            self._left_s -= now - began
        if not asked.begun:
            return None
        self._cancelled.pop(key, None)
        return False

    def _left(self) -> float:
        with self._lock:
            now = self._clock()
            self._left_s = min(_MOST_S, self._left_s + _REFILL * (now - self._since))
            self._since = now
            return self._left_s

    def begun(self, keys: Iterable[int]) -> None:
        """These tries run. Receiver thread."""
        for key in keys:
            if (asked := self.waiting.get(key)) is not None:
                asked.begun = True
                asked.answered.set()

    def settle(self, known: Container[int]) -> None:
        """Wake those who wait for tries that are not known any more: their outcomes are reported. Receiver thread."""
        for key, asked in list(self.waiting.items()):
            if key not in known:
                asked.answered.set()
