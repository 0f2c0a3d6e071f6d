"""Explanations that a future gives by itself: that it has ended and how, or that it belongs to no task."""

from __future__ import annotations

from concurrent.futures import Future as StdFuture
from typing import TYPE_CHECKING, Any

from flow_core.guard import one_line
from flow_core.interfaces.waiting import Cause, CauseKind, Explanation

if TYPE_CHECKING:
    from collections.abc import Callable

_GLANCE_S = 0.05  # seconds; a loop that waits for less each time looks often, so its error only names why()
_SHORT_WAIT_S = 0.5  # seconds; a wait that was shorter than an answer may take gets what is known at once
_ANSWER_S = 1.0  # seconds that an executor has: it is added to a timeout of at least half of that


def explained(future: StdFuture[Any], who: str, state: str, task_id: int | None) -> Explanation:
    """Return why a future is not done where no task says so: most often it is."""
    if not future.done():
        text = "no task of this process settles it, so nothing more is known here"
        return Explanation(who, state, (Cause(CauseKind.UNKNOWN, text),), task_id)
    error = None if future.cancelled() else future.exception()
    how = "" if error is None else f" with {one_line(error).rstrip('.:')}"
    text = f"it has ended{how}: nothing is waited for"
    return Explanation(who, state, (Cause(CauseKind.DONE, text),), task_id)


def parent_why(parent: StdFuture[Any] | None, timeout_s: float, itself: Callable[[], Explanation]) -> Explanation:
    """Return why the parent of a future is not done; its own explanation where the parent has none."""
    why: Callable[[float], Explanation] | None = getattr(parent, "why", None)
    return itself() if parent is None or parent.done() or why is None else why(timeout_s)


def in_one_line(why: Callable[[float], Explanation], timeout_s: float | None) -> str:
    """Return the end of a TimeoutError's message: the state, and all causes. Never raises."""
    if timeout_s is None or timeout_s < _GLANCE_S:
        return "; its why() says why"
    try:
        return f"; {why(0.0 if timeout_s < _SHORT_WAIT_S else _ANSWER_S).line}"
    except Exception as error:
        return f"; why cannot be told ({type(error).__name__})"
