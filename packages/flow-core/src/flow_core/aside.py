"""Calls of the user's objects on threads of their own, so that the caller waits for no longer than it wants to."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class NoAnswerError(Exception):
    """A call did not come back within its bound; it may still do so, and what it returns then is thrown away."""


class Aside(Generic[T]):
    """One call, on a daemon thread that begins with it. Any thread.

    Args:
        name: Of the thread.
        function: Is called.
        late: Takes the answer where that comes when nobody waits for it any more.
    """

    def __init__(self, name: str, function: Callable[[], T], late: Callable[[T], object] | None = None) -> None:
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
        """Return its answer, or raise what it raised.

        Raises:
            NoAnswerError: it has not come back within the time. It goes on.
        """
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


def within(timeout_s: float, call: Callable[[], object], name: str) -> bool:
    """Call something of the user's on a thread of this name, and wait for it so many seconds; tell whether it ended.

    Raises:
        BaseException: what it raised. One that has not ended goes on, and nobody waits for it.
    """
    try:
        Aside(name, call).wait(timeout_s)
    except NoAnswerError:
        return False
    return True
