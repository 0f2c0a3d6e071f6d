"""What providers share whose service is asked by an API: states that never go back, jobs that were lost, capacity."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Sequence
from threading import Lock

from flow_providers.block_options import BlockOptions
from flow_providers.block_provider import BlockProvider
from flow_providers.interfaces.job_status import JobStatus
from flow_providers.jobs.tracker import JobTracker


class TrackedProvider(BlockProvider):
    """Base of providers that ask one service for the states of jobs and remember what it said.

    Args:
        options: What all of them can be told.
        missing_after_s: How long a job submitted here may be unknown to the service before it is MISSING.
    """

    def __init__(self, options: BlockOptions, missing_after_s: float) -> None:
        super().__init__(options)
        self._lock = Lock()
        self._polling = Lock()  # one query at a time
        self._tracker = JobTracker(missing_after_s)

    @abstractmethod
    def query(self, job_ids: Sequence[str]) -> dict[str, JobStatus]:
        """Return the states of the jobs that the service knows, asking once. SchedulerUnavailable: it is away."""

    def jobs_ended(self, job_ids: Sequence[str]) -> None:
        """Clean up after jobs that were just seen to have ended. Must not raise."""
        return None

    @property
    def current_capacity(self) -> int:  # noqa: D102
        with self._lock:
            return len(self._tracker.live())

    def status(self, job_ids: Sequence[str]) -> list[JobStatus]:  # noqa: D102
        with self._polling:
            with self._lock:
                asked = self._tracker.asked(job_ids)
            if asked:
                self.jobs_ended(self._poll(asked))
            with self._lock:
                return [self._tracker.status(job_id) for job_id in job_ids]

    def note_submitted(self, job_id: str) -> str:
        """Take a job that was just submitted, and return its id."""
        with self._lock:
            self._tracker.submitted(job_id)
        return job_id

    def note_cancelled(self, job_ids: Sequence[str]) -> None:
        """Take jobs that are going by our request."""
        with self._lock:
            for job_id in job_ids:
                self._tracker.cancelled(job_id)

    def _poll(self, asked: Sequence[str]) -> list[str]:
        rows = self.query(asked)
        now = time.monotonic()
        with self._lock:
            absent = self._tracker.listed(now, asked, rows)
            self._tracker.looked_up(now, absent, {})
            return [job_id for job_id in asked if self._tracker.status(job_id).terminal]
