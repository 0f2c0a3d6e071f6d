"""What a future can say of itself: that it has ended and how, or that it belongs to no task."""

from __future__ import annotations

from concurrent.futures import Future as StdFuture
from typing import TYPE_CHECKING, Any

from flow_core.guard import one_line
from flow_core.interfaces.waiting import Cause, CauseKind, Explanation

if TYPE_CHECKING:
    from collections.abc import Callable

_GLANCE_S = 0.05
"""Who waits for less than this looks often, and is only told whom to ask."""
_SHORT_WAIT_S = 0.5
"""Who waits for less than this is told what is known at once: nobody is asked."""
_ANSWER_S = 1.0


def explained(future: StdFuture[Any], who: str, state: str, task_id: int | None) -> Explanation:
    """Return why a future is not done where no task says so: most often it is."""
    if not future.done():
        text = "no task of this process settles it, so nothing more is known here"
        return Explanation(who, state, (Cause(CauseKind.UNKNOWN, text),), task_id)
    error = None if future.cancelled() else future.exception()
    how = "" if error is None else f" with {one_line(error).rstrip('.')}"
    text = f"it has ended{how}: nothing is waited for"
    return Explanation(who, state, (Cause(CauseKind.DONE, text),), task_id)


def parent_why(parent: StdFuture[Any] | None, timeout_s: float, itself: Callable[[], Explanation]) -> Explanation:
    """Return why the parent of a future is not done; what it says of itself where that cannot tell."""
    why: Callable[[float], Explanation] | None = getattr(parent, "why", None)
    return itself() if parent is None or parent.done() or why is None else why(timeout_s)


def in_one_line(why: Callable[[float], Explanation], timeout_s: float | None) -> str:
    """Return what a TimeoutError is to say: the state, and all causes. Never raises."""
    if timeout_s is None or timeout_s < _GLANCE_S:
        return "; its why() says why"
    try:
        return f"; {why(0.0 if timeout_s < _SHORT_WAIT_S else _ANSWER_S).line}"
    except Exception as error:
        return f"; why cannot be told ({type(error).__name__})"
