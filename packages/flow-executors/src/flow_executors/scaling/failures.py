"""Errors about failed blocks: their text, and what the user's handler makes of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from flow_core.errors import ExecutorBroken, FlowError
from flow_core.guard import traceback_of
from flow_executors.scaling.recovery import RecoveryPolicy
from flow_providers.errors import ProviderError
from flow_providers.interfaces.job_status import JobStatus

BlockErrorHandler = Callable[[object, Mapping[str, JobStatus]], BaseException | None]
"""Called with the executor's host and the blocks that failed one after another, by id, when none is left and enough was
tried. Returns the error that all tasks get, or None to go on trying: then it is asked again after the next failure. It
has a minute to answer; if it takes longer, raises, or returns anything else, the tasks get an error that says so."""

# Lines of a job's standard error, and of a traceback, that the error shows: more would bury its headline.
_TAIL_LINES = 20
_TRACE_LINES = 12


# Characters of a line that is named in the log.
_LONGEST_LINE = 300


def last_line(text: str) -> str:
    """Return the last line of what a job wrote that is not empty, shortened if it is very long."""
    lines = text.strip().splitlines()
    return lines[-1].strip()[:_LONGEST_LINE] if lines else ""


def describe(
    label: str,
    recovery: RecoveryPolicy,
    waited_s: float,
    failed: Mapping[str, JobStatus],
    jobs: Mapping[str, str],
    tails: Mapping[str, str],
    cause: BaseException | None = None,
) -> str:
    """Return the text of the error: what was tried for how long, which jobs ended how, what the last of them wrote.

    Args:
        label: The executor.
        recovery: What is known of the failures.
        waited_s: For how long tasks have waited with no block connected.
        failed: The blocks.
        jobs: Their jobs' ids, where there are.
        tails: What their jobs wrote to standard error last, where known.
        cause: What was raised last, if anything was.
    """
    lines = [_headline(label, recovery, waited_s, failed, jobs)]
    for name, status in list(failed.items())[-3:]:
        lines.append(f"  block {name}, {_job(jobs.get(name, ''))}: {how(status)}")
    if not failed and recovery.last_error:
        lines.append(f"  {recovery.last_error}")
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
    lines += _trace(cause)
    lines.append("A later call makes a fresh attempt.")
    return "\n".join(lines)


def _headline(
    label: str, recovery: RecoveryPolicy, waited_s: float, failed: Mapping[str, JobStatus], jobs: Mapping[str, str]
) -> str:
    if recovery.worked:
        return (
            f"executor {label!r} has had no workers for {waited_s:.0f} s, and {recovery.attempts} attempts in a row to "
            f"start another block failed (recovery_timeout={recovery.within_s:g}), so its tasks cannot run now:"
        )
    count = "1 block" if len(failed) == 1 else f"{len(failed)} blocks"
    what = "ended before any workers connected" if any(jobs.values()) else "could not be submitted"
    return f"{count} of executor {label!r} {what}, so none of its tasks can run:"


def _trace(cause: BaseException | None) -> list[str]:
    """Return where a provider, launcher or hook of the user's raised; nothing for errors that are foreseen."""
    error = cause
    while error is not None and isinstance(error, ProviderError | FlowError):
        error = error.__cause__
    if error is None:
        return []
    shown = traceback_of(error).rstrip().splitlines()
    return ["it was raised here:", *(f"  | {line}" for line in shown[-_TRACE_LINES:])]


def how(status: JobStatus) -> str:
    """Return how a job ended, in words."""
    parts = [status.state.name]
    told = f"exit code {status.exit_code}"
    if status.exit_code is not None and not f"{status.reason} {status.message}".rstrip().endswith(told):
        parts.append(told)
    if status.signal is not None:
        parts.append(f"signal {status.signal}")
    parts += [text for text in (status.reason, status.message) if text]
    return ", ".join(parts)


def failure_text(text: str, cause: BaseException | None) -> ExecutorBroken:
    """Return the error that all tasks get."""
    error = ExecutorBroken(text)
    error.__cause__ = cause
    return error


def _job(job_id: str) -> str:
    return f"job {job_id}" if job_id else "no job"
