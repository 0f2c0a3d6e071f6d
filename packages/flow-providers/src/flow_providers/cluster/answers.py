"""Answers of schedulers' commands: exit codes, refusals and words, whatever the scheduler."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from shlex import quote

from flow_providers.errors import SchedulerUnavailable
from flow_providers.exit_codes import signal_of
from flow_providers.interfaces.channel import CommandResult
from flow_providers.interfaces.job_state import JobState
from flow_providers.interfaces.job_status import JobStatus

_NOT_RUN = frozenset({126, 127})  # the shell's own exit codes: there is no such command, or it is no program


def ended_with(code: str) -> JobStatus:
    """Return the status of a job whose script ended with an exit code."""
    number = int(code)
    state = JobState.COMPLETED if number == 0 else JobState.FAILED
    return JobStatus(state, exit_code=number, signal=signal_of(number))


def words(result: CommandResult) -> str:
    """Return the scheduler's own text about a failure, with the exit code, for error messages."""
    said = " / ".join(part.strip() for part in (result.stderr, result.stdout) if part.strip())
    return f"{said or 'it said nothing'} (exit code {result.exit_code})"


def was_killed(result: CommandResult) -> bool:
    """Return whether a command was killed before it said anything; with words, 153 is an exit code of qdel's own."""
    return signal_of(result.exit_code) is not None and not (result.stdout + result.stderr).strip()


def told(result: CommandResult, job_ids: Sequence[str], *gone: str) -> str:
    """Return the output of a cancelling command, of both of its streams.

    Args:
        result: How it ended.
        job_ids: The jobs it was to cancel.
        gone: Texts, in lower case, by which it reports that jobs are gone already.

    Raises:
        SchedulerUnavailable: it failed without mentioning the jobs, so it is not known whether they are going.
    """
    # Both streams, since schedulers differ, and versions of one scheduler too, in where they report an error.
    said = f"{result.stdout}\n{result.stderr}"
    if result.exit_code != 0:
        mentioned = {word.strip(".") for word in re.findall(r"[\w.\[\]-]+", said)}
        about_jobs = any(words in said.lower() for words in gone) or not mentioned.isdisjoint(job_ids)
        # The silence of a command is no answer: when qdel or bkill was not installed, every job once counted as
        # cancelled and went on.
        if result.exit_code in _NOT_RUN or not about_jobs:
            raise SchedulerUnavailable(f"it is not known whether jobs were cancelled: {words(result)}")
    return said


def listed(ids: Sequence[str], separator: str = ",") -> str:
    """Return ids as one word for the shell."""
    return quote(separator.join(ids)) if separator != " " else " ".join(quote(job_id) for job_id in ids)


def merged(*parts: Mapping[str, JobStatus]) -> dict[str, JobStatus]:
    """Return the rows of several answers; earlier ones win."""
    rows: dict[str, JobStatus] = {}
    for part in parts:
        # The queue, asked first, is newer than the history.
        rows = {**part, **rows}
    return rows
