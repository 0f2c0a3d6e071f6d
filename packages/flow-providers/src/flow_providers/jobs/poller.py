"""The poller of job states: a thread that asks a provider at intervals and reports what changed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from threading import Condition, Thread
from time import monotonic

from flow_providers.errors import ProviderError, SchedulerUnavailable
from flow_providers.interfaces.job_status import JobStatus
from flow_providers.interfaces.provider import ExecutionProvider
from flow_providers.sequences import listed

logger = logging.getLogger("flow.providers.poller")

# Longest interval while the scheduler is away, in intervals: 40 s by default; also the cap of the exponent.
_SLOWEST_FACTOR = 8


class JobPoller:
    """Polls all watched jobs in one query per interval; slower, up to 8 times, while the scheduler is away.

    Jobs that have ended are no longer watched. Nothing runs while nothing is watched.

    Args:
        provider: Is asked.
        on_change: Called in the poller's thread with the jobs whose status changed; must not block for long.
        interval_s: Seconds between two queries.
    """

    def __init__(
        self,
        provider: ExecutionProvider,
        on_change: Callable[[Mapping[str, JobStatus]], None],
        interval_s: float = 5.0,
    ) -> None:
        self._provider = provider
        self._on_change = on_change
        self._interval_s = interval_s
        self._wake = Condition()
        self._watched: dict[str, JobStatus | None] = {}
        self._poked = False
        self._closed = False
        self._failures = 0
        self._thread = Thread(target=self._run, name="flow-job-poller", daemon=True)
        self._thread.start()

    def watch(self, job_ids: Iterable[str]) -> None:
        """Watch jobs from now on; they are asked for at once. Any thread."""
        watched = listed(job_ids, "JobPoller.watch")
        with self._wake:
            for job_id in watched:
                self._watched.setdefault(job_id, None)
        self.poke()

    def forget(self, job_ids: Iterable[str]) -> None:
        """Watch jobs no longer. Any thread."""
        forgotten = listed(job_ids, "JobPoller.forget")
        with self._wake:
            for job_id in forgotten:
                self._watched.pop(job_id, None)

    def poke(self) -> None:
        """Ask now rather than at the end of the interval. Any thread."""
        with self._wake:
            self._poked = True
            self._wake.notify()

    def close(self, timeout_s: float = 10.0) -> None:
        """End the thread; idempotent. Jobs go on."""
        with self._wake:
            self._closed = True
            self._wake.notify()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        while True:
            with self._wake:
                self._wait()
                if self._closed:
                    return
                self._poked = False
                # A copy: the query runs without the lock, so that watch() and forget() never wait for a scheduler.
                asked = list(self._watched)
            if asked:
                self._ask(asked)

    def _wait(self) -> None:
        deadline = monotonic() + self._interval_s * min(2**self._failures, _SLOWEST_FACTOR)
        while not self._poked and not self._closed:
            left = deadline - monotonic()
            if not self._watched:
                # Seconds; there is nothing to ask, and watch() wakes this thread. Bounded, as every wait here.
                self._wake.wait(3600)
            elif left > 0:
                self._wake.wait(left)
            else:
                return

    def _ask(self, asked: list[str]) -> None:
        try:
            answers = dict(zip(asked, self._provider.status(asked), strict=True))
        except SchedulerUnavailable as error:
            self._failed("the scheduler does not answer, states are unchanged: %s", error)
            return
        except (ProviderError, OSError, ValueError) as error:
            self._failed("cannot ask for the states of jobs: %s", error)
            return
        self._failures = 0
        changed = self._changes(answers)
        if changed:
            self._tell(changed)

    def _changes(self, answers: Mapping[str, JobStatus]) -> dict[str, JobStatus]:
        changed = {}
        with self._wake:
            for job_id, status in answers.items():
                # It may have been forgotten while the query was under way.
                if job_id in self._watched and self._watched[job_id] != status:
                    changed[job_id] = status
                    self._watched[job_id] = status
                if status.terminal:
                    self._watched.pop(job_id, None)
        return changed

    def _tell(self, changed: Mapping[str, JobStatus]) -> None:
        try:
            self._on_change(changed)
        # Whatever the listener raises, other jobs still have to be watched.
        except Exception:
            logger.exception("the listener to job states failed; polling goes on")

    def _failed(self, text: str, error: Exception) -> None:
        self._failures = min(self._failures + 1, _SLOWEST_FACTOR)
        logger.warning(text, error)
