"""The tracker of job states: from a scheduler's answers to states. Pure: no clock, no I/O.

Schedulers list the jobs in their queue. A job that has left the list is looked up in their history; one that neither
knows is MISSING, at once if nobody here submitted it, after a while if it was (a new job may not be listed yet, a list
may be cut off, history may lag). A terminal state never changes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from flow_providers.interfaces.job_state import JobState
from flow_providers.interfaces.job_status import JobStatus

_NOT_SEEN_YET = JobStatus(JobState.PENDING, message="submitted; the scheduler does not list it yet")
_MISSING = JobStatus(JobState.MISSING, message="neither the queue nor the history of the scheduler knows it")
_CANCELLED = JobStatus(JobState.CANCELLED, message="cancelled, and gone from the queue")


@dataclass(slots=True)
class _Tracked:
    status: JobStatus
    absent_since: float | None
    own: bool
    cancelled: bool = False


class JobTracker:
    """States of the jobs of one provider. Not thread-safe: the caller holds a lock.

    Args:
        missing_after_s: Seconds that a job submitted here may be in neither queue nor history before it is MISSING.
    """

    def __init__(self, missing_after_s: float = 60.0) -> None:
        self._missing_after_s = missing_after_s
        self._jobs: dict[str, _Tracked] = {}

    def submitted(self, job_id: str) -> None:
        """Take a job that was just submitted here; an older job of that id is forgotten."""
        self._jobs[job_id] = _Tracked(_NOT_SEEN_YET, None, own=True)

    def asked(self, job_ids: Iterable[str]) -> list[str]:
        """Take the jobs of a question, and return those that are not terminal: the scheduler must be asked."""
        for job_id in job_ids:
            self._jobs.setdefault(job_id, _Tracked(_NOT_SEEN_YET, None, own=False))
        return [job_id for job_id in dict.fromkeys(job_ids) if not self._jobs[job_id].status.terminal]

    def listed(self, now: float, asked: Iterable[str], rows: Mapping[str, JobStatus]) -> list[str]:
        """Take an answer of the queue about the jobs asked; return those it did not list, to be looked up.

        Args:
            now: Seconds on any steady clock.
            asked: The jobs the answer is about.
            rows: The jobs that are listed; others may be among them.
        """
        absent = []
        for job_id in asked:
            job = self._jobs[job_id]
            if job.status.terminal:
                continue
            row = rows.get(job_id)
            if row is None:
                job.absent_since = now if job.absent_since is None else job.absent_since
                absent.append(job_id)
            else:
                job.absent_since = None
                self._take(job, row)
        return absent

    def looked_up(self, now: float, absent: Iterable[str], rows: Mapping[str, JobStatus]) -> None:
        """Take an answer of the history about the jobs that the queue did not list."""
        for job_id in absent:
            job = self._jobs[job_id]
            if job.status.terminal:
                continue
            row = rows.get(job_id)
            if row is not None:
                self._take(job, row)
            waited = now - (now if job.absent_since is None else job.absent_since)
            # Only a job submitted here has to be somewhere; one that was cancelled may leave without a trace.
            expected = row is not None or (job.own and not job.cancelled)
            if not job.status.terminal and (waited >= self._missing_after_s or not expected):
                job.status = _CANCELLED if job.cancelled else _MISSING

    def cancelled(self, job_id: str) -> None:
        """Note that a job was cancelled here: once neither queue nor history has it, it is CANCELLED."""
        if job_id in self._jobs:
            self._jobs[job_id].cancelled = True

    def status(self, job_id: str) -> JobStatus:
        """Return the state of a job as of the last answer. KeyError: neither submitted nor asked for here."""
        return self._jobs[job_id].status

    def live(self) -> list[str]:
        """Return the jobs submitted here that are neither cancelled nor terminal."""
        return [
            job_id for job_id, job in self._jobs.items() if job.own and not job.cancelled and not job.status.terminal
        ]

    def _take(self, job: _Tracked, row: JobStatus) -> None:
        if job.cancelled and row.state is JobState.FAILED and row.signal is not None:
            row = replace(row, state=JobState.CANCELLED)  # some schedulers only tell the signal we had sent
        # An answer that is not understood takes nothing away from what is known.
        if row.state is not JobState.UNKNOWN:
            job.status = row
        elif job.status is _NOT_SEEN_YET:
            job.status = replace(row, state=JobState.UNKNOWN)
