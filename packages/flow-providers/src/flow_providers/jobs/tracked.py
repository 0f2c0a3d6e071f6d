"""The base of providers whose service has an API: states that never go back, jobs that were lost, capacity."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Sequence
from threading import Lock

from flow_providers.block_options import BlockOptions
from flow_providers.block_provider import BlockProvider
from flow_providers.interfaces.job_status import JobStatus
from flow_providers.interfaces.locality import Locality
from flow_providers.jobs.tracker import JobTracker


class TrackedProvider(BlockProvider):
    """Base of providers that ask one service for the states of jobs and remember its answers.

    Args:
        options: The options that all of them share.
        missing_after_s: Seconds that a job submitted here may be unknown to the service before it is MISSING.
    """

    def __init__(self, options: BlockOptions, missing_after_s: float) -> None:
        super().__init__(options)
        self._lock = Lock()
        self._polling = Lock()  # one query at a time: an older answer must not arrive after a newer one
        self._tracker = JobTracker(missing_after_s)

    @abstractmethod
    def query(self, job_ids: Sequence[str]) -> dict[str, JobStatus]:
        """Return the states of the jobs that the service knows, asking once. SchedulerUnavailable: it is away."""

    def jobs_ended(self, job_ids: Sequence[str]) -> None:
        """Clean up after jobs that the last query found ended. May call the service; must not raise."""
        return None

    @property
    def locality(self) -> Locality:
        """Machines or pods of their own, which share nothing with this machine."""
        return Locality.ELSEWHERE

    @property
    def current_capacity(self) -> int:
        """Jobs submitted through this object and not seen to have ended."""
        with self._lock:
            return len(self._tracker.live())

    def status(self, job_ids: Sequence[str]) -> list[JobStatus]:
        """Return the status of each job, with one query for those that are not known to have ended.

        Raises:
            SchedulerUnavailable: the service does not answer now; states are unchanged.
        """
        # The other lock is free during the query, so that submit and cancel do not wait for the service.
        with self._polling:
            with self._lock:
                asked = self._tracker.asked(job_ids)
            if asked:
                self.jobs_ended(self._poll(asked))
            with self._lock:
                return [self._tracker.status(job_id) for job_id in job_ids]

    def note_submitted(self, job_id: str) -> str:
        """Track a job that was just submitted, and return its id. Any thread."""
        with self._lock:
            self._tracker.submitted(job_id)
        return job_id

    def note_cancelled(self, job_ids: Sequence[str]) -> None:
        """Note that jobs are going by our request: once the service does not know them, they are CANCELLED."""
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
