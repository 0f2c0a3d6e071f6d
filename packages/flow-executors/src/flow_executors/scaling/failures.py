"""What it means that blocks fail, and how it is told."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from flow_core.errors import ExecutorBroken
from flow_providers.interfaces.job_status import JobStatus

BlockErrorHandler = Callable[[object, Mapping[str, JobStatus]], BaseException | None]
"""Called with the executor's host and the blocks that failed one after another, by id, when none is left. Returns the
error that all tasks get, or None to go on trying."""

_TAIL_LINES = 20


def describe(label: str, failed: Mapping[str, JobStatus], jobs: Mapping[str, str], tails: Mapping[str, str]) -> str:
    """Return the text of the error: which jobs ended how, and what the last of them wrote.

    Args:
        label: The executor.
        failed: The blocks.
        jobs: Their jobs' ids, where there are.
        tails: What their jobs wrote to standard error last, where known.
    """
    count = "1 block" if len(failed) == 1 else f"{len(failed)} blocks"
    lines = [f"{count} of executor {label!r} ended before any workers connected, so none of its tasks can run:"]
    for name, status in list(failed.items())[-3:]:
        lines.append(f"  block {name}, {_job(jobs.get(name, ''))}: {how(status)}")
    told = [(name, text.strip()) for name, text in tails.items() if text.strip()]
    if told:
        name, text = told[-1]
        lines.append(f"last lines of standard error of block {name}:")
        lines += [f"  | {line}" for line in text.splitlines()[-_TAIL_LINES:]]
    elif any(jobs.values()):
        lines.append(
            "Their jobs wrote nothing to standard error. Look at worker_init and at the executor's address: can the "
            "nodes reach it?"
        )
    return "\n".join(lines)


def how(status: JobStatus) -> str:
    """Say how a job ended."""
    parts = [status.state.name]
    if status.exit_code is not None:
        parts.append(f"exit code {status.exit_code}")
    if status.signal is not None:
        parts.append(f"signal {status.signal}")
    parts += [text for text in (status.reason, status.message) if text]
    return ", ".join(parts)


def give_up(text: str, cause: BaseException | None) -> ExecutorBroken:
    """Return the error that all tasks get."""
    error = ExecutorBroken(text)
    error.__cause__ = cause
    return error


def _job(job_id: str) -> str:
    return f"job {job_id}" if job_id else "no job"
