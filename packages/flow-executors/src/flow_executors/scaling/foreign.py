"""Calls of the user's objects, such as providers and strategies: whatever they do, an answer within a bound."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")
_MOST_STUCK = 3


class NoAnswerError(Exception):
    """A call did not come back within its bound; it may still do so, and what it returns then is thrown away."""


class _Call(Generic[T]):
    """One call on a thread of its own."""

    def __init__(self, name: str, function: Callable[[], T], late: Callable[[T], object] | None) -> None:
        self._function = function
        self._late = late
        self._lock = threading.Lock()
        self._left = False
        self._answer: list[T] = []
        self._error: BaseException | None = None
        self._done = threading.Event()
        threading.Thread(target=self._run, name=name, daemon=True).start()

    @property
    def done(self) -> bool:
        """Whether it came back."""
        return self._done.is_set()

    def wait(self, timeout_s: float) -> T:
        """Return its answer, or raise what it raised. NoAnswerError: it has not come back."""
        self._done.wait(timeout_s)
        with self._lock:
            self._left = not self._done.is_set()
        if self._left:
            raise NoAnswerError
        if self._error is not None:
            raise self._error
        return self._answer[0]

    def _run(self) -> None:
        try:
            self._answer.append(self._function())
        except BaseException as error:
            self._error = error
        with self._lock:
            self._done.set()
            late = self._left
        if late and self._late is not None and self._answer:
            try:
                self._late(self._answer[0])
            except BaseException:
                pass  # the caller has gone on without it, and knows of the delay


class ForeignCalls:
    """Makes calls that may take for ever. Any thread.

    Args:
        name: Of the threads.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._stuck: list[_Call[object]] = []

    def call(
        self, what: str, function: Callable[[], T], timeout_s: float, late: Callable[[T], object] | None = None
    ) -> T:
        """Call and return the answer; whatever the function raises is raised here.

        Args:
            what: How the call is named in the error.
            function: Is called on a thread of its own.
            timeout_s: How long it may take.
            late: Takes an answer that comes when nobody waits for it any more.

        Raises:
            NoAnswerError: it took longer, or too many calls before it have still not come back.
        """
        with self._lock:
            self._stuck = [call for call in self._stuck if not call.done]
            stuck = len(self._stuck)
        if stuck >= _MOST_STUCK:
            raise NoAnswerError(f"{what} is not called: {stuck} calls before have still not come back")
        call = _Call(self._name, function, late)
        try:
            return call.wait(timeout_s)
        except NoAnswerError:
            if not call.done:
                with self._lock:
                    self._stuck.append(call)  # type: ignore[arg-type]  # only asked whether it is done
                raise NoAnswerError(f"{what} has not come back within {timeout_s:.3g} s") from None
            raise
