"""An entry of the ledger: one job, and the fold of its records."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import Enum

from flow_providers.spec import Plain


class EntryState(Enum):
    """How far the ledger knows a job to be."""

    INTENDED = "intended"
    """About to be submitted; whether it was, only the scheduler knows."""
    SUBMITTED = "submitted"
    """Submitted, with an id."""
    REFUSED = "refused"
    """Surely not submitted."""
    ENDED = "ended"
    """Gone, or going: nothing is left to do."""
    ADOPTED = "adopted"
    """Taken over by a person: nothing here ends it any more."""

    @property
    def open(self) -> bool:
        """Whether the job may still be there: it has to be ended or adopted."""
        return self in (EntryState.INTENDED, EntryState.SUBMITTED)


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """The state of one job, as the records of the ledger give it.

    Attributes:
        tag: The job's tag.
        run_id: The run it was submitted for.
        owner: The submitter, such as the executor's label.
        job_name: Its name.
        provider: Spec of the provider, without secrets.
        host: Host of the driver.
        pid: Process id of the driver.
        submitted_at: When the intent was written, seconds since the epoch.
        state: How far it got.
        job_id: The scheduler's id, once known.
        detail: The last word on it.
    """

    tag: str
    run_id: str = ""
    owner: str = ""
    job_name: str = ""
    provider: dict[str, Plain] = field(default_factory=dict)
    host: str = ""
    pid: int = 0
    submitted_at: float = 0.0
    state: EntryState = EntryState.INTENDED
    job_id: str | None = None
    detail: str = ""


def fold(records: Iterable[dict[str, object]]) -> dict[str, LedgerEntry]:
    """Return the entries by tag that the records of a ledger, oldest first, add up to. Pure.

    Records about tags without an intent, and records that make no sense, are left out.
    """
    entries: dict[str, LedgerEntry] = {}
    for record in records:
        tag = record.get("tag")
        if not isinstance(tag, str) or not tag:
            continue
        if record.get("kind") == EntryState.INTENDED.value:
            # setdefault: a second intent of the same tag must not reopen an entry.
            entries.setdefault(tag, _intent(tag, record))
        elif tag in entries:
            entries[tag] = _step(entries[tag], record)
    return entries


def _intent(tag: str, record: dict[str, object]) -> LedgerEntry:
    provider, pid, when = record.get("provider"), record.get("pid"), record.get("time")
    return LedgerEntry(
        tag,
        run_id=str(record.get("run", "")),
        owner=str(record.get("owner", "")),
        job_name=str(record.get("name", "")),
        provider=provider if isinstance(provider, dict) else {},
        host=str(record.get("host", "")),
        pid=pid if isinstance(pid, int) else 0,
        submitted_at=float(when) if isinstance(when, int | float) else 0.0,
    )


def _step(entry: LedgerEntry, record: dict[str, object]) -> LedgerEntry:
    try:
        state = EntryState(record.get("kind"))
    except ValueError:  # of a later version
        return entry
    job_id = record.get("id")
    if isinstance(job_id, str) and entry.job_id is None:
        entry = replace(entry, job_id=job_id)
    # The first end counts: a late "submitted", of a driver that was slow, does not reopen what was swept.
    if not entry.state.open:
        return entry
    return replace(entry, state=state, detail=str(record.get("detail", "")))
