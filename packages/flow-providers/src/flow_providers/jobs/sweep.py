"""Ends the jobs that a ledger says were left behind; nothing is ended that does not carry its tag."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from flow_providers.errors import SchedulerUnavailable
from flow_providers.interfaces.provider import ExecutionProvider
from flow_providers.jobs.entry import LedgerEntry
from flow_providers.jobs.ledger import JobLedger


@dataclass(frozen=True, slots=True)
class Located:
    """A job of the ledger as its scheduler knows it: its id, or None when the scheduler knows no job of that tag."""

    entry: LedgerEntry
    job_id: str | None


_APPEARS_WITHIN_S = 60.0  # a submission that was under way when its driver died may become visible this late


def locate(provider: ExecutionProvider, entries: Sequence[LedgerEntry]) -> list[Located]:
    """Find the jobs of ledger entries at their scheduler by their tags. SchedulerUnavailable: ask later."""
    if not entries:
        return []
    carrying_tags = set(provider.find(_common_start([entry.tag for entry in entries])))
    return [Located(entry, _job_id(provider, entry, carrying_tags)) for entry in entries]


def sweep(provider: ExecutionProvider, ledger: JobLedger, entries: Sequence[LedgerEntry]) -> list[LedgerEntry]:
    """Cancel the jobs of ledger entries, and record it.

    Returns:
        The entries that could not be cancelled, or whose jobs may still appear: do those again.

    Raises:
        SchedulerUnavailable: do it again later. Where some of several places answered, their jobs are cancelled.
    """
    try:
        located = locate(provider, entries)
    except SchedulerUnavailable as error:
        _cancel(provider, ledger, [Located(entry, entry.job_id) for entry in entries if entry.job_id in error.found])
        raise
    return _cancel(provider, ledger, located)


def _cancel(provider: ExecutionProvider, ledger: JobLedger, located: Sequence[Located]) -> list[LedgerEntry]:
    job_ids = [job.job_id for job in located if job.job_id is not None]
    gone = dict(zip(job_ids, provider.cancel(job_ids), strict=True))
    left = []
    for job in located:
        if job.job_id is None and job.entry.job_id is None and _is_young(job.entry):
            left.append(job.entry)
        elif job.job_id is None:
            ledger.ended(job.entry.tag, "gone")
        elif gone[job.job_id]:
            ledger.ended(job.entry.tag, "CANCELLED")
        else:
            left.append(job.entry)
    return left


def _job_id(provider: ExecutionProvider, entry: LedgerEntry, carrying_tags: set[str]) -> str | None:
    if entry.job_id is not None:
        return entry.job_id if entry.job_id in carrying_tags else None
    return next(iter(provider.find(entry.tag)), None) if carrying_tags else None


def _is_young(entry: LedgerEntry) -> bool:
    return time.time() - entry.submitted_at < _APPEARS_WITHIN_S


def _common_start(tags: Sequence[str]) -> str:
    low, high = min(tags), max(tags)
    return next((low[:i] for i, c in enumerate(low) if high[i : i + 1] != c), low)
