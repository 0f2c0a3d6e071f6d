"""Keeps a reaper in place for as long as there are jobs that only it would cancel."""

from __future__ import annotations

import logging
import time
from pathlib import Path

from flow_providers.errors import ProviderError
from flow_providers.interfaces.provider import ExecutionProvider
from flow_providers.jobs.ledger import JobLedger
from flow_providers.jobs.reaper_process import ReaperProcess

_FIRST_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 60.0
STOPPED_S = 5.0
"""A reaper that has been stopped for so long is replaced."""


class ReaperGuardian:
    """The reaper of one owner's jobs: started at once, replaced when it has died or was stopped. One thread at a time.

    Args:
        provider: See ``ReaperProcess``.
        ledger: Where the jobs are.
        run_id: The run.
        owner: Who submits.
        log_path: File for what it does; its directory is made.
        logger: Is told when there is none, and why.
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
        if self._closed or time.monotonic() < self._next_at:
            return
        if self._process is None:
            self._start()
        elif (why := self._fault(self._process)) is not None:
            self._logger.warning("the reaper of %s (pid %d) %s: it is replaced", self._owner, self._process.pid, why)
            self._process.kill()
            self._process = self._stopped_since = None
            self._start()

    def close(self) -> None:
        """End it; it cancels nothing. Idempotent."""
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
        return "is stopped" if now - self._stopped_since >= STOPPED_S else None

    def _start(self) -> None:
        try:
            self._log_path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._process = ReaperProcess(
                self._provider,
                self._ledger,
                run_id=self._run_id,
                owner=self._owner,
                log_path=str(self._log_path),
            )
            self._failures = 0
            self._next_at = time.monotonic() + _FIRST_PAUSE_S
        except (ProviderError, OSError, ValueError, TypeError) as error:
            self._failed(error)

    def _failed(self, error: Exception) -> None:
        """Try again later, and less and less often; tell it once."""
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
