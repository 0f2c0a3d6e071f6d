"""The sweep of a ledger: ends jobs that were left behind, and nothing that does not carry its entry's tag."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from flow_providers.errors import SchedulerUnavailable
from flow_providers.interfaces.provider import ExecutionProvider
from flow_providers.jobs.entry import LedgerEntry
from flow_providers.jobs.ledger import JobLedger

_SUBMITTED_WITHIN_S = 60.0  # seconds from an intent to the submission, by a driver that may be alive


@dataclass(frozen=True, slots=True)
class Located:
    """A job of the ledger as its scheduler knows it: its id, or None when the scheduler knows no job of that tag."""

    entry: LedgerEntry
    job_id: str | None


def locate(provider: ExecutionProvider, entries: Sequence[LedgerEntry]) -> list[Located]:
    """Find the jobs of ledger entries at their scheduler by their tags. SchedulerUnavailable: ask later."""
    if not entries:
        return []
    # One query for all entries, by what their tags have in common; the exact tags are compared afterwards.
    carrying_tags = set(provider.find(_common_start([entry.tag for entry in entries])))
    return [Located(entry, _job_id(provider, entry, carrying_tags)) for entry in entries]


def sweep(
    provider: ExecutionProvider, ledger: JobLedger, entries: Sequence[LedgerEntry], *, submitters_gone: bool = False
) -> list[LedgerEntry]:
    """Cancel the jobs of ledger entries, and record it.

    Args:
        provider: Finds and cancels the jobs.
        ledger: Takes the records.
        entries: The jobs.
        submitters_gone: Whether the processes that wrote the entries are surely dead: then an intent without a job is
            ended once the provider's ``appears_within_s`` are over, otherwise after 60 s if that is longer.

    Returns:
        The entries that could not be cancelled, or whose jobs may still appear: do those again.

    Raises:
        SchedulerUnavailable: do it again later. Where some of several places answered, their jobs are cancelled.
    """
    try:
        located = locate(provider, entries)
    except SchedulerUnavailable as error:
        # For a dead host, the jobs on all other hosts of a collection once went on for ever.
        _cancel(provider, ledger, [Located(entry, entry.job_id) for entry in entries if entry.job_id in error.found], 0)
        raise
    appears_within_s = provider.appears_within_s
    if not submitters_gone:
        appears_within_s = max(appears_within_s, _SUBMITTED_WITHIN_S)
    return _cancel(provider, ledger, located, appears_within_s)


def _cancel(
    provider: ExecutionProvider, ledger: JobLedger, located: Sequence[Located], appears_within_s: float
) -> list[LedgerEntry]:
    job_ids = [job.job_id for job in located if job.job_id is not None]
    gone = dict(zip(job_ids, provider.cancel(job_ids), strict=True))
    provider.clear([job_id for job_id, is_gone in gone.items() if is_gone])
    left = []
    for job in located:
        if job.job_id is None and job.entry.job_id is None and _age_s(job.entry) < appears_within_s:
            left.append(job.entry)
        elif job.job_id is None:
            ledger.ended(job.entry.tag, "gone")
        elif gone[job.job_id]:
            ledger.ended(job.entry.tag, "CANCELLED")
        else:
            left.append(job.entry)
    return left


def _job_id(provider: ExecutionProvider, entry: LedgerEntry, carrying_tags: set[str]) -> str | None:
    # Ids are used again by schedulers: an id counts only where the job that has it carries a tag of ours.
    if entry.job_id is not None:
        return entry.job_id if entry.job_id in carrying_tags else None
    return next(iter(provider.find(entry.tag)), None) if carrying_tags else None


def _age_s(entry: LedgerEntry) -> float:
    return time.time() - entry.submitted_at


def _common_start(tags: Sequence[str]) -> str:
    low, high = min(tags), max(tags)
    return next((low[:i] for i, c in enumerate(low) if high[i : i + 1] != c), low)
