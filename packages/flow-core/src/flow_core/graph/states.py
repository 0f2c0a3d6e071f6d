"""States of a task, and the one table of legal transitions between them."""

from __future__ import annotations

from enum import IntEnum

from flow_core.errors import IllegalTransition


class State(IntEnum):
    """State of a task. Events and pages use the lower-case names."""

    unsched = 0
    """Made; not yet handed to the graph."""
    pending = 1
    """Waits: for its parents, for an identical call in flight, or to be launched."""
    staging = 2
    """Its files are brought in or out."""
    launched = 3
    """A try was handed to an executor, and no start was reported."""
    running = 4
    """A try was reported to run."""
    joining = 5
    """The body of a join app returned; its futures are waited for."""
    fail_retryable = 6
    """A try failed and another one will be made."""
    exec_done = 7
    """Ended: it ran and has a result."""
    memo_done = 8
    """Ended: its result was remembered, or shared by an identical call."""
    failed = 9
    """Ended: its last try failed."""
    dep_fail = 10
    """Ended: a parent failed, so it was never run."""
    cancelled = 11
    """Ended: cancelled."""

    @property
    def final(self) -> bool:
        """Whether a task ends in this state."""
        return self >= State.exec_done


UNSCHED, PENDING, STAGING, LAUNCHED, RUNNING, JOINING = list(State)[:6]
FAIL_RETRYABLE, EXEC_DONE, MEMO_DONE, FAILED, DEP_FAIL, CANCELLED = list(State)[6:]
"""The members by names of their own, for what is done for each task: to find ``State.pending`` takes 70 ns in
Python 3.11 (enumerations have a ``__getattr__`` there), a global takes 8, and a task asks a dozen times."""

_ENDS = (MEMO_DONE, FAILED, DEP_FAIL, CANCELLED)
# A try may end before its start was reported, so what may follow ``running`` may follow ``launched``, too.
_TRY_ENDS = (EXEC_DONE, *_ENDS, FAIL_RETRYABLE, PENDING, JOINING, STAGING)

TRANSITIONS: dict[State, tuple[State, ...]] = {
    UNSCHED: (PENDING, STAGING, LAUNCHED, *_ENDS),
    PENDING: (STAGING, LAUNCHED, *_ENDS),
    STAGING: (LAUNCHED, EXEC_DONE, PENDING, FAIL_RETRYABLE, *_ENDS),
    LAUNCHED: (RUNNING, *_TRY_ENDS),
    RUNNING: _TRY_ENDS,
    JOINING: (EXEC_DONE, STAGING, FAIL_RETRYABLE, FAILED, CANCELLED),
    FAIL_RETRYABLE: (STAGING, LAUNCHED, *_ENDS),
    EXEC_DONE: (),
    MEMO_DONE: (),
    FAILED: (),
    DEP_FAIL: (),
    CANCELLED: (),
}
"""Which states may follow each state. ``launched`` leads back to ``pending`` when a try was returned unstarted."""

FOLLOWING: tuple[int, ...] = tuple(sum(1 << after for after in TRANSITIONS[state]) for state in State)
"""The same with a bit for each state that may follow: one shift a transition, where a tuple would compare members."""


def illegal(before: State, after: State) -> IllegalTransition:
    """Return the error of a task that went from one state to another which may not follow it."""
    return IllegalTransition(f"a task went from {before.name} to {after.name}: this is a bug of Flow")
