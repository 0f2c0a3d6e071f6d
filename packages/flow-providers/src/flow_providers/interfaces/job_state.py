"""The states of a batch job, the same for every scheduler."""

from __future__ import annotations

from enum import Enum


class JobState(Enum):
    """State of a job as its scheduler sees it."""

    UNKNOWN = 0
    """The scheduler said something that could not be understood; ask again."""
    PENDING = 1
    """Accepted, waiting for resources."""
    HELD = 2
    """Waiting, and will not start until somebody releases it."""
    RUNNING = 3
    """On its nodes (also: being set up there, suspended, or ending)."""
    COMPLETED = 4
    """Ended with exit code 0."""
    FAILED = 5
    """Ended in any other way of its own or its node's."""
    CANCELLED = 6
    """Ended by request of a user or an administrator."""
    TIMEOUT = 7
    """Ended by the scheduler at its walltime."""
    MISSING = 8
    """The scheduler knows nothing of it (any more): it left, and nobody knows how."""
    SCALED_IN = 9
    """Ended by us because its block was no longer needed; set by executors, never by a provider."""

    @property
    def terminal(self) -> bool:
        """Whether a job never leaves this state."""
        return self in _TERMINAL


_TERMINAL = frozenset(
    {
        JobState.COMPLETED,
        JobState.FAILED,
        JobState.CANCELLED,
        JobState.TIMEOUT,
        JobState.MISSING,
        JobState.SCALED_IN,
    }
)
