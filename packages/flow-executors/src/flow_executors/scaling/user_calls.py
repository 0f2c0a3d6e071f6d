"""Calls of the user's objects, such as providers and strategies: whatever they do, an answer within a bound."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

from flow_core.bounded_calls import BoundedCall, NoAnswerError

T = TypeVar("T")
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
        try:
            return call.wait(timeout_s)
        except NoAnswerError:
            if not call.done:
                self.leave(call)
                raise NoAnswerError(f"{what} has not come back within {timeout_s:.3g} s") from None
            raise

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
