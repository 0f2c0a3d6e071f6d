"""The parser of what ``jobs.sh`` prints: rows and states of local jobs. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from flow_providers.exit_codes import signal_of
from flow_providers.interfaces.job_state import JobState
from flow_providers.interfaces.job_status import JobStatus


@dataclass(frozen=True, slots=True)
class LocalRow:
    """One line of ``jobs.sh status``: the facts about one job by its files and its process; times in seconds."""

    known: bool
    alive: bool
    code: int | None
    cancelled: bool
    timed_out: bool
    started_at: float | None


def parse_rows(text: str) -> dict[str, LocalRow]:
    """Return the rows by job id; lines that are no rows are left out."""
    rows = {}
    for line in text.splitlines():
        fields = line.split("|")
        if len(fields) == 7:
            stem, alive, code, _ended, cancelled, timed_out, started = fields
            rows[stem] = LocalRow(
                known=alive != "unknown",
                alive=alive == "yes",
                code=_number(code),
                cancelled=cancelled == "yes",
                timed_out=timed_out == "yes",
                started_at=_number(started),
            )
    return rows


def status_of(row: LocalRow | None, folder: str, stem: str, walltime_s: float | None) -> JobStatus:
    """Return the status of a job from its row (None: it was not in the answer)."""
    if row is None or not row.known:
        return JobStatus(JobState.MISSING, message=f"no files of a job {stem} in {folder}")
    state, message = _state(row)
    return JobStatus(
        state=state,
        message=message,
        exit_code=row.code if state.terminal else None,
        signal=signal_of(row.code) if state.terminal else None,
        stdout_path=f"{folder}/{stem}.out",
        stderr_path=f"{folder}/{stem}.err",
        started_at=row.started_at,
        ends_at=row.started_at + walltime_s if row.started_at is not None and walltime_s is not None else None,
    )


def _state(row: LocalRow) -> tuple[JobState, str]:
    # The exit code counts more than the process: its group may live on for a moment after the script has ended.
    ended = row.code is not None or (row.started_at is not None and not row.alive)
    if not ended:
        return (JobState.RUNNING, "") if row.alive else (JobState.PENDING, "")
    # Before the exit code: that of a cancelled job only says which signal ended it.
    if row.cancelled:
        return JobState.CANCELLED, ""
    if row.timed_out:
        return JobState.TIMEOUT, "it ran longer than its walltime"
    if row.code is None:
        return JobState.FAILED, "its process group was killed from outside: no exit code"
    if row.code == 0:
        return JobState.COMPLETED, ""
    return JobState.FAILED, f"its command ended with exit code {row.code}"


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() else None
