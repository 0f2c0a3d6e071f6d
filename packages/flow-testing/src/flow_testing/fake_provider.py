"""A provider without a scheduler, whose jobs change state only when a test says so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from threading import Condition

from flow_providers.errors import ProviderError, SchedulerUnavailable
from flow_providers.interfaces.job_extras import NO_EXTRAS, JobExtras
from flow_providers.interfaces.job_state import JobState
from flow_providers.interfaces.job_status import JobStatus
from flow_providers.interfaces.provider import ExecutionProvider
from flow_providers.options import checked

_PENDING = JobStatus(JobState.PENDING)


@dataclass(slots=True)
class FakeJob:
    """A job of a FakeProvider: the arguments of its submission, and its present status."""

    command: str
    tasks_per_node: int
    job_name: str
    extras: JobExtras
    status: JobStatus = _PENDING


@dataclass(slots=True)
class _Faults:
    submit: list[ProviderError] = field(default_factory=list)
    away: bool = False
    uncancellable: set[str] = field(default_factory=set)


class FakeProvider(ExecutionProvider):
    """Accepts jobs and does nothing; a test moves them with ``move`` and breaks things with the other methods.

    Thread-safe. ``jobs`` maps ids ("1", "2", ...) to what was submitted.
    """

    label = "fake"

    @checked
    def __init__(
        self,
        nodes_per_block: int = 1,
        init_blocks: int = 1,
        min_blocks: int = 0,
        max_blocks: int = 10,
        parallelism: float = 1,
        cores_per_node: int | None = None,
        mem_per_node: float | None = None,
        walltime_s: float | None = None,
    ) -> None:
        self.nodes_per_block = nodes_per_block
        self.init_blocks = init_blocks
        self.min_blocks = min_blocks
        self.max_blocks = max_blocks
        self.parallelism = parallelism
        self.cores_per_node = cores_per_node
        self.mem_per_node = mem_per_node
        self.walltime_s = walltime_s
        self.jobs: dict[str, FakeJob] = {}
        self.closed = False
        self._faults = _Faults()
        self._changed = Condition()

    # -- for the test

    def move(self, job_id: str, state: JobState, **known: object) -> None:
        """Put a job into a state; further fields of JobStatus by name."""
        with self._changed:
            self.jobs[job_id].status = JobStatus(state, **known)  # type: ignore[arg-type]  # checked by the dataclass
            # Tests and watchers wait for the change instead of asking again and again.
            self._changed.notify_all()

    def fail_submits(self, *errors: ProviderError) -> None:
        """Make the next submissions raise these errors, one each."""
        self._faults.submit.extend(errors)

    def go_away(self, away: bool = True) -> None:
        """Make every question raise SchedulerUnavailable, or answer again."""
        self._faults.away = away

    def refuse_cancel(self, *job_ids: str) -> None:
        """Make ``cancel`` answer False for these jobs from now on, and leave them as they are."""
        self._faults.uncancellable.update(job_ids)

    def wait_for_jobs(self, count: int, timeout_s: float = 10.0) -> list[str]:
        """Wait until so many jobs were submitted and return their ids; AssertionError: they were not."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.jobs) >= count, timeout_s), f"{len(self.jobs)} jobs"
            return list(self.jobs)

    # -- the provider

    def submit(
        self, command: str, tasks_per_node: int, job_name: str = "flow.auto", *, extras: JobExtras = NO_EXTRAS
    ) -> str:
        """Take the job as PENDING and return its id, or raise the next error of ``fail_submits``."""
        with self._changed:
            if self._faults.submit:
                # Before the job is made: after SubmitException nothing may be there.
                raise self._faults.submit.pop(0)
            job_id = str(len(self.jobs) + 1)
            self.jobs[job_id] = FakeJob(command, tasks_per_node, job_name, extras)
            self._changed.notify_all()
            return job_id

    def status(self, job_ids: Sequence[str]) -> list[JobStatus]:
        """Return the states that the test gave the jobs; MISSING for ids that were never submitted.

        Raises:
            SchedulerUnavailable: after ``go_away``.
        """
        with self._changed:
            self._answer()
            # An id that was never submitted is MISSING, as the contract of providers has it.
            missing = FakeJob("", 1, "", NO_EXTRAS, JobStatus(JobState.MISSING))
            return [self.jobs.get(job_id, missing).status for job_id in job_ids]

    def cancel(self, job_ids: Sequence[str]) -> list[bool]:
        """Put jobs that have not ended into CANCELLED; False for those of ``refuse_cancel``.

        Raises:
            SchedulerUnavailable: after ``go_away``.
        """
        with self._changed:
            self._answer()
            for job_id in job_ids:
                job = self.jobs.get(job_id)
                if job is not None and job_id not in self._faults.uncancellable and not job.status.terminal:
                    job.status = JobStatus(JobState.CANCELLED)
            self._changed.notify_all()
            return [job_id not in self._faults.uncancellable for job_id in job_ids]

    def find(self, tag_prefix: str) -> list[str]:
        """Return the ids of the jobs whose tag starts with ``tag_prefix``, ended ones included.

        Raises:
            SchedulerUnavailable: after ``go_away``.
        """
        with self._changed:
            self._answer()
            return [job_id for job_id, job in self.jobs.items() if job.extras.tag.startswith(tag_prefix)]

    @property
    def current_capacity(self) -> int:
        """Jobs that have not ended."""
        with self._changed:
            return sum(not job.status.terminal for job in self.jobs.values())

    def close(self) -> None:
        """Set ``closed``; jobs stay as they are."""
        self.closed = True

    def _answer(self) -> None:
        if self._faults.away:
            raise SchedulerUnavailable("the fake scheduler is away")
