"""One block: what is known of its job and of its managers, and whether it can still be of use. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from flow_providers.interfaces.job_state import JobState
from flow_providers.interfaces.job_status import JobStatus

_WAITING = JobStatus(JobState.PENDING)
_NEVER = float("inf")


@dataclass(frozen=True, slots=True)
class Bounds:
    """How long what does not work is borne with, in seconds.

    Attributes:
        start_s: A job may run for so long before the first manager of its block connects.
        empty_s: A job may go on for so long after the last manager of its block has left or fallen silent.
        cancel_again_s: After so long a job that was cancelled and has not ended is cancelled again.
        cancel_s: After so long a job that was to be cancelled and has not ended no longer counts.
        recovery_s: For so long tasks wait for a block while one attempt after the other fails.
    """

    start_s: float = 900.0
    empty_s: float = 10.0
    cancel_again_s: float = 30.0
    cancel_s: float = 120.0
    recovery_s: float = 600.0


@dataclass(slots=True)
class Block:
    """One block.

    Attributes:
        name: Its id, unique in the executor's life.
        job_id: The provider's id; empty until it is submitted.
        status: State of its job, as the provider reported it last.
        submitted_at: When it was submitted.
        running_since: When its job was first seen to run.
        managers: How many of its managers are connected.
        most: The most that ever were at once.
        joined_at: When the first one connected; None if none has.
        empty_since: Since when no manager is connected, where some were.
        left_because: Why the last one left.
        releasing_since: Since when it is being drained to be given back; None if it is not.
        finishing: It is drained since it has lost managers, and what runs there may take as long as it needs.
        condemned: Why it was found to be of no use; empty if it was not.
        cancelled: Its job was cancelled by us.
        cancel_since: Since when its job is to be cancelled.
        cancel_again_at: When its job is to be cancelled again if it has not ended.
        barred: All its nodes are held: it gets no tasks.
        written_off: Its job could not be ended, and no longer counts.
        idle_for_s: Seconds for which it has had nothing to do, as reported last.
        known_idle: Whether ``idle_for_s`` was reported since it joined.
    """

    name: str
    job_id: str = ""
    status: JobStatus = _WAITING
    submitted_at: float = 0.0
    running_since: float | None = None
    managers: int = 0
    most: int = 0
    joined_at: float | None = None
    empty_since: float | None = None
    left_because: str = ""
    releasing_since: float | None = None
    finishing: bool = False
    condemned: str = ""
    cancelled: bool = False
    cancel_since: float | None = None
    cancel_again_at: float = 0.0
    barred: bool = False
    written_off: bool = False
    idle_for_s: float = 0.0
    known_idle: bool = False

    @property
    def ended(self) -> bool:
        """Whether its job is over."""
        return self.status.terminal

    @property
    def active(self) -> bool:
        """Whether it counts: waiting for nodes, or on them, and not on its way out."""
        leaving = self.releasing_since is not None or self.cancelled or bool(self.condemned)
        return not (self.ended or leaving or self.written_off or self.barred)

    def short(self, usual: int, bounds: Bounds, now: float) -> bool:
        """Whether it has fewer managers than it had, or did not get as many as others have in the time of a start."""
        if not (self.active and self.managers) or self.joined_at is None:
            return False
        late = now - self.joined_at >= bounds.start_s
        return self.managers < self.most or (late and self.managers < usual)

    def growing(self, usual: int, bounds: Bounds, now: float) -> bool:
        """Whether managers of it may still come: it waits for its nodes, or has fewer of them than others have."""
        if not self.active:
            return False
        return self.joined_at is None or (0 < self.managers < usual and not self.short(usual, bounds, now))

    def useless(self, bounds: Bounds, now: float) -> str:
        """Return why its job is of no use though it has not ended; empty while it may be of some."""
        if self.empty_since is not None and now - self.empty_since >= bounds.empty_s:
            why = f" ({self.left_because})" if self.left_because else ""
            return f"its last manager left {now - self.empty_since:.0f} s ago{why}, and its job has not ended"
        running = self.running_since
        if self.joined_at is None and running is not None and now - running >= bounds.start_s:
            return (
                f"its job has been running for {now - running:.0f} s, and none of its managers has connected "
                f"(block_start_timeout={bounds.start_s:g})"
            )
        return ""

    def due_at(self, bounds: Bounds) -> float:
        """Return when it is to be looked at again though nothing has happened to it."""
        if self.cancel_since is not None:
            return min(self.cancel_again_at, _NEVER if self.written_off else self.cancel_since + bounds.cancel_s)
        if self.condemned:
            return self.cancel_again_at
        if self.empty_since is not None:
            return self.empty_since + bounds.empty_s
        if self.joined_at is None and self.running_since is not None:
            return self.running_since + bounds.start_s
        return _NEVER
