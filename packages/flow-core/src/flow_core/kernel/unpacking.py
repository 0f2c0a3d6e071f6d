"""Unpacking of results, which may hang in code of the user's: each holds up its own task alone."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from flow_core.errors import ExecutorError
from flow_core.futures.callbacks import packing_calls
from flow_core.futures.freeing import free
from flow_core.guard import one_line
from flow_core.hooks import Handling
from flow_core.interfaces.outcome import Outcome, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from flow_core.interfaces.call import TryKey
    from flow_core.interfaces.outcome import Ended


class Unpacking:
    """Makes the outcomes of tries that have ended, and reports those that came together in one report. Any thread."""

    def __init__(self, finished: Callable[[Sequence[Outcome]], None], task_of: Callable[[TryKey], object]) -> None:
        """Take the receiver of outcomes, and what gives the task of a try (None for one that is not known)."""
        self._finished = finished
        self._task_of = task_of

    def take(self, tries: Sequence[Ended]) -> None:
        """Have outcomes made and reported; never blocks."""
        report = _Report(self._finished)
        for key, make in tries:
            packing_calls.soon(report.add, _Unmade(key, make, self._task_of(key)), _describe)
        # Queued behind all of them, so that what was quick is reported together: one turn of the graph and one write.
        packing_calls.soon(report.send, None, lambda _call, _given: "a report of results")


class _Unmade:
    """A try whose outcome is to be made."""

    __slots__ = ("_key", "_make", "handling")

    def __init__(self, key: TryKey, make: Callable[[], Outcome], task: object) -> None:
        self._key = key
        self._make = make
        self.handling = Handling(f"try {key}" if task is None else task, "the unpacking of", "result")

    def made(self) -> Outcome:
        try:
            with self.handling:
                return self._make()
        except BaseException as error:
            failure = ExecutorError(f"what came of the task cannot be read: {one_line(error)}")
            failure.__cause__ = error
            return Outcome(self._key, Verdict.APP_ERROR, error=failure)


class _Report:
    """Outcomes that are reported together, but for those that are made later than the others."""

    __slots__ = ("_finished", "_made", "_sent")

    def __init__(self, finished: Callable[[Sequence[Outcome]], None]) -> None:
        self._finished = finished
        self._made: deque[Outcome] = deque()
        self._sent = False

    def add(self, unmade: _Unmade) -> None:
        self._made.append(unmade.made())
        if self._sent:  # it has taken long, and the others did not wait
            self.send(None)

    def send(self, _given: object) -> None:
        self._sent = True
        outcomes = []
        while self._made:
            try:
                outcomes.append(self._made.popleft())
            except IndexError:  # by another thread
                break
        if outcomes:
            self._finished(outcomes)
            # A list of its own, since the other may still be read; this thread is not to free the results.
            mine = list(outcomes)
            del outcomes
            free(mine)


def _describe(_call: object, unmade: _Unmade) -> str:
    return str(unmade.handling)
