"""The states of a task, and the one table of legal transitions between them."""

from __future__ import annotations

from enum import IntEnum

from flow_core.errors import IllegalTransition


class State(IntEnum):
    """Where a task is on its way. Events and pages use the lower-case names."""

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


_ENDS = (State.memo_done, State.failed, State.dep_fail, State.cancelled)
_TRY_ENDS = (State.exec_done, *_ENDS, State.fail_retryable, State.pending, State.joining, State.staging)

TRANSITIONS: dict[State, tuple[State, ...]] = {
    State.unsched: (State.pending, State.staging, State.launched, *_ENDS),
    State.pending: (State.staging, State.launched, *_ENDS),
    State.staging: (State.launched, State.exec_done, State.pending, State.fail_retryable, *_ENDS),
    State.launched: (State.running, *_TRY_ENDS),
    State.running: _TRY_ENDS,
    State.joining: (State.exec_done, State.staging, State.fail_retryable, State.failed, State.cancelled),
    State.fail_retryable: (State.staging, State.launched, *_ENDS),
    State.exec_done: (),
    State.memo_done: (),
    State.failed: (),
    State.dep_fail: (),
    State.cancelled: (),
}
"""Which states may follow each state. ``launched`` leads back to ``pending`` when a try was returned unstarted."""

_LEGAL: tuple[int, ...] = tuple(sum(1 << after for after in TRANSITIONS[state]) for state in State)


def check_transition(before: State, after: State) -> None:
    """Raise IllegalTransition unless a task may go from one state to the other."""
    if not _LEGAL[before] >> after & 1:
        raise IllegalTransition(f"a task went from {before.name} to {after.name}: this is a bug of Flow")
