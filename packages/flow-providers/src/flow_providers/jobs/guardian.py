"""The guardian of a run's reaper: starts it, and replaces it when it is dead or stopped."""

from __future__ import annotations

import logging
import time
from pathlib import Path

from flow_providers.errors import ProviderError
from flow_providers.folders import make_directory
from flow_providers.interfaces.provider import ExecutionProvider
from flow_providers.jobs.ledger import JobLedger
from flow_providers.jobs.reaper_process import ReaperProcess

_FIRST_PAUSE_S = 1.0  # seconds between two starts; doubled with each start that fails
_LONGEST_PAUSE_S = 60.0  # seconds; a fault that lasts is tried again once a minute, jobs being unguarded meanwhile
STOPPED_S = 5.0
"""Seconds after which a stopped reaper is replaced; shorter stops are waited for."""


class ReaperGuardian:
    """The reaper of one owner's jobs: started at once, replaced when it has died or was stopped. One thread at a time.

    Args:
        provider: See ``ReaperProcess``.
        ledger: Where the jobs are.
        run_id: The run.
        owner: The submitter of the jobs, such as an executor's label.
        log_path: File for the reaper's log; its directory is made.
        logger: Takes a warning when there is no reaper, with the reason.
    """

    def __init__(
        self,
        provider: ExecutionProvider,
        ledger: JobLedger,
        *,
        run_id: str,
        owner: str,
        log_path: Path,
        logger: logging.Logger,
    ) -> None:
        self._provider = provider
        self._ledger = ledger
        self._run_id = run_id
        self._owner = owner
        self._log_path = log_path
        self._logger = logger
        self._process: ReaperProcess | None = None
        self._failures = 0
        self._next_at = 0.0
        self._stopped_since: float | None = None
        self._closed = False
        self._start()

    @property
    def pid(self) -> int:
        """Process id of the reaper that watches now; 0 where there is none."""
        return self._process.pid if self._process is not None else 0

    def tend(self) -> None:
        """Replace a reaper that does not watch any more; to be called every few seconds. Never raises."""
        # Called every few seconds by the executor's own loop; the pauses between starts are kept here.
        if self._closed or time.monotonic() < self._next_at:
            return
        if self._process is None:
            self._start()
        elif (why := self._fault(self._process)) is not None:
            self._logger.warning("the reaper of %s (pid %d) %s: it is replaced", self._owner, self._process.pid, why)
            # Killed before another one is started: a stopped reaper that goes on later would cancel the jobs of a run
            # that is well.
            self._process.kill()
            self._process = self._stopped_since = None
            self._start()

    def close(self) -> None:
        """End the reaper without cancelling jobs. Idempotent; waits up to 5 s."""
        self._closed = True
        process, self._process = self._process, None
        if process is not None:
            process.close()

    def _fault(self, process: ReaperProcess) -> str | None:
        if not process.alive():
            return "is dead"
        if not process.stopped():
            self._stopped_since = None
            return None
        now = time.monotonic()
        self._stopped_since = now if self._stopped_since is None else self._stopped_since
        # A stopped reaper does not see the end of this process, and would not end its jobs.
        return "is stopped" if now - self._stopped_since >= STOPPED_S else None

    def _start(self) -> None:
        try:
            make_directory(self._log_path.parent, 0o700)
            self._process = ReaperProcess(
                self._provider,
                self._ledger,
                run_id=self._run_id,
                owner=self._owner,
                log_path=str(self._log_path),
            )
            self._failures = 0
            self._next_at = time.monotonic() + _FIRST_PAUSE_S
        # Jobs run without a reaper, too: its absence is a warning, never the end of the run.
        except (ProviderError, OSError, ValueError, TypeError) as error:
            self._failed(error)

    def _failed(self, error: Exception) -> None:
        """Plan the next try, with pauses that double up to 60 s; warn at the first failure only."""
        self._failures += 1
        pause = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2.0 ** min(self._failures, 10))
        self._next_at = time.monotonic() + pause
        log = self._logger.warning if self._failures == 1 else self._logger.debug
        log(
            "should this process be killed, nobody will cancel the jobs of %s but their own managers, which leave when "
            "the interchange is gone: %s",
            self._owner,
            error,
        )
