"""The blocks of one executor at its provider: submitted with ledger and tag, watched, cancelled, never left behind."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from flow_executors.scaling.host import BlockOrder
from flow_providers.errors import ProviderError
from flow_providers.interfaces.job_extras import JobExtras
from flow_providers.interfaces.job_status import JobStatus
from flow_providers.interfaces.provider import ExecutionProvider
from flow_providers.jobs.accounted import AccountedProvider
from flow_providers.jobs.ledger import JobLedger
from flow_providers.jobs.reaper_process import ReaperProcess

_TAIL_BYTES = 4096


class BlockJobs:
    """The jobs of one executor's blocks. Any thread; every call may block for the provider's ``cmd_timeout``."""

    def __init__(
        self,
        provider: ExecutionProvider,
        *,
        label: str,
        run_id: str,
        run_dir: Path,
        executor_dir: Path,
        logger: logging.Logger,
    ) -> None:
        provider.offer_script_dir(str(run_dir / "submit_scripts"))
        ledger = JobLedger(os.environ.get("FLOW_JOBS_LEDGER") or run_dir.parent / "jobs.ledger")
        owner = label
        self._provider = AccountedProvider(provider, ledger, run_id=run_id, owner=owner)
        self._label = label
        self._reaper = _reaper(provider, ledger, run_id, owner, executor_dir, logger)

    def submit(self, block: str, order: BlockOrder) -> str:
        """Submit the job of a block and return its id. Raises ProviderError."""
        return self._provider.submit(
            order.command,
            1,
            f"flow.{self._label}.block-{block}",
            extras=JobExtras(environment=order.environment, secrets=order.secrets),
        )

    def status(self, job_ids: Sequence[str]) -> dict[str, JobStatus]:
        """Return the states of jobs by id. Raises ProviderError: nothing is known now."""
        if not job_ids:
            return {}
        return dict(zip(job_ids, self._provider.status(job_ids), strict=True))

    def cancel(self, job_ids: Sequence[str]) -> list[str]:
        """Cancel jobs; return those that could not be cancelled. Raises ProviderError."""
        if not job_ids:
            return []
        answers = self._provider.cancel(job_ids)
        return [job_id for job_id, gone in zip(job_ids, answers, strict=True) if not gone]

    def tails(self, jobs: Mapping[str, str]) -> dict[str, str]:
        """Return the end of standard error of each block's job (block -> job id). Never raises."""
        found = {}
        for block, job_id in jobs.items():
            try:
                found[block] = self._provider.tail(job_id, _TAIL_BYTES)[1] if job_id else ""
            except ProviderError:
                found[block] = ""
        return found

    def close(self) -> None:
        """Let the reaper go: no job is left for it. The provider itself is the user's, and may be used again."""
        if self._reaper is not None:
            self._reaper.close()
            self._reaper = None


def _reaper(
    provider: ExecutionProvider,
    ledger: JobLedger,
    run_id: str,
    owner: str,
    executor_dir: Path,
    logger: logging.Logger,
) -> ReaperProcess | None:
    try:
        executor_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        return ReaperProcess(provider, ledger, run_id=run_id, owner=owner, log_path=str(executor_dir / "reaper.log"))
    except (ProviderError, OSError) as error:
        logger.warning(
            "should this process be killed, nobody will cancel the jobs of %s but their own managers, which leave when "
            "the interchange is gone: %s",
            owner,
            error,
        )
        return None
