"""Calls of the user's objects, such as providers and strategies: whatever they do, an answer within a bound."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from flow_core.bounded_calls import BoundedCall, NoAnswerError
from flow_core.hooks import where_in_users_code
from flow_core.interfaces.waiting import duration

T = TypeVar("T")
_SLOW_S = 1.0
"""Seconds after which a call is named where somebody asks why there are no workers; only the magnitude matters."""
# Calls that may stay away before none is begun any more: each holds a thread, perhaps for good.
_MOST_STUCK = 3


class UserCalls:
    """Makes calls that may take for ever. Any thread.

    Args:
        name: Of the threads.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._stuck: list[BoundedCall[Any]] = []
        self._awaited: dict[BoundedCall[Any], str] = {}

    def call(
        self, what: str, function: Callable[[], T], timeout_s: float, late: Callable[[T], object] | None = None
    ) -> T:
        """Call and return the answer; whatever the function raises is raised here.

        Args:
            what: How the call is named in the error.
            function: Is called on a thread of its own.
            timeout_s: How long it may take.
            late: Called with an answer that comes after the timeout.

        Raises:
            NoAnswerError: it took longer, or too many calls before it have still not come back.
        """
        if self.full:
            raise NoAnswerError(f"{what} is not called: {_MOST_STUCK} calls before have still not come back")
        call = BoundedCall(self._name, function, late)
        with self._lock:
            self._awaited[call] = what
        try:
            return call.wait(timeout_s)
        except NoAnswerError:
            if not call.done:
                self.leave(call)
                raise NoAnswerError(f"{what} has not come back within {timeout_s:.3g} s") from None
            raise
        finally:
            with self._lock:
                del self._awaited[call]

    def slow(self) -> list[str]:
        """Return what is waited for just now, and has taken longer than such calls do, each as a clause."""
        now = time.monotonic()
        with self._lock:
            calls = list(self._awaited.items())
        return [
            f"{what} was called {duration(now - call.since)} ago and has not returned"
            f"{where_in_users_code(call.thread_id)}"
            for call, what in calls
            if now - call.since > _SLOW_S and not call.done
        ]

    @property
    def full(self) -> bool:
        """Whether so many calls were left that no other should be begun."""
        with self._lock:
            self._stuck = [call for call in self._stuck if not call.done]
            return len(self._stuck) >= _MOST_STUCK

    def leave(self, call: BoundedCall[Any]) -> None:
        """Count a call that is no longer waited for; it holds a thread until it comes back."""
        with self._lock:
            self._stuck.append(call)
