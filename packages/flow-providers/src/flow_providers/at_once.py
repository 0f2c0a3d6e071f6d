"""Calls made at once, each on a thread of its own, also while the interpreter ends."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import Thread
from time import monotonic
from typing import Generic, TypeVar

T = TypeVar("T")


class NotAnsweredError(Exception):
    """A call has not come back in its time; it goes on, and nobody waits for it."""


class Answer(Generic[T]):
    """What a call came to."""

    def __init__(self, call: Callable[[], T]) -> None:
        self._call = call
        self._answers: list[T] = []
        self._error: BaseException | None = None

    def make(self) -> None:
        """Make the call. Never raises."""
        try:
            self._answers.append(self._call())
        except BaseException as error:
            self._error = error

    def result(self) -> T:
        """Return what the call returned; raises what it raised. NotAnsweredError: it has not come back in its time."""
        if self._error is not None:
            raise self._error
        if not self._answers:
            raise NotAnsweredError
        return self._answers[0]


def at_once(calls: Sequence[Callable[[], T]], limits_s: Sequence[float | None] = ()) -> list[Answer[T]]:
    """Make calls at once and return when all have ended, in their order. Any thread.

    One with a limit is waited for that many seconds, and left then. It is not made where no thread starts.

    Not by a pool of ``concurrent.futures``, which refuses work once the main thread has ended, when jobs are cancelled
    by scripts that end with their blocks open. From Python 3.12 on no thread starts there: the calls come in turn.
    """
    answers = [Answer(call) for call in calls]
    limits = {answer: limit_s for answer, limit_s in zip(answers, limits_s, strict=False) if limit_s is not None}
    own = next((answer for answer in answers if answer not in limits), None)  # made by this thread
    threads = []
    began = monotonic()
    for answer in answers:
        if answer is own:
            continue
        thread = Thread(target=answer.make, name="flow-at-once", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # the interpreter ends, or the system gives no more threads
            if answer not in limits:
                answer.make()
        else:
            threads.append((answer, thread))
    if own is not None:
        own.make()
    for answer, thread in threads:
        limit_s = limits.get(answer)
        thread.join(None if limit_s is None else max(0.0, began + limit_s - monotonic()))
    return answers
