"""The status of one job at one moment."""

from __future__ import annotations

from dataclasses import dataclass

from flow_providers.interfaces.job_state import JobState


@dataclass(frozen=True, slots=True)
class JobStatus:
    """The status of one job, as its scheduler reports it.

    Attributes:
        state: The state.
        reason: The scheduler's own short reason, such as why a job waits (``Resources``) or failed (``NodeFail``).
        message: A sentence for the user where the reason does not say enough.
        exit_code: Exit code, where the job has ended and it is known; 128 + n after signal n.
        signal: The signal that ended it, or None.
        stdout_path: File of its standard output, on the channel's side.
        stderr_path: File of its standard error, on the channel's side.
        nodes: Names of its nodes, where known.
        started_at: When it started to run, seconds since the epoch.
        ends_at: When the scheduler will end it, seconds since the epoch; None when there is no limit or it is unknown.
    """

    state: JobState
    reason: str = ""
    message: str = ""
    exit_code: int | None = None
    signal: int | None = None
    stdout_path: str | None = None
    stderr_path: str | None = None
    nodes: tuple[str, ...] = ()
    started_at: float | None = None
    ends_at: float | None = None

    @property
    def terminal(self) -> bool:
        """Whether the job has ended for good."""
        return self.state.terminal
