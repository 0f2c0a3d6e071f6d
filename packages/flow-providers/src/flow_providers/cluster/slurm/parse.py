"""Parsers of the commands of Slurm: job states from squeue and sacct. Pure."""

from __future__ import annotations

import re

from flow_providers.cluster.hostlist import expand_hosts
from flow_providers.interfaces.job_state import JobState
from flow_providers.interfaces.job_status import JobStatus

# one field each, every one ended by "|"; the reason is last since it may hold anything
QUERY_FIELDS = ("JobID", "State", "exit_code", "StartTime", "EndTime", "NodeList", "Reason")
QUERY_FORMAT = ",".join(f"{name}:|" for name in QUERY_FIELDS)
OLD_FORMAT = "%A|%T|-|%S|%e|%N|%r|"  # before 20.02: no exit codes
SACCT_FIELDS = "JobIDRaw,State,ExitCode,Start,End,NodeList"

STATES = {
    "BOOT_FAIL": JobState.FAILED,
    "CANCELLED": JobState.CANCELLED,
    "COMPLETED": JobState.COMPLETED,
    "COMPLETING": JobState.RUNNING,
    "CONFIGURING": JobState.RUNNING,
    "DEADLINE": JobState.TIMEOUT,
    "FAILED": JobState.FAILED,
    "LAUNCH_FAILED": JobState.FAILED,
    "NODE_FAIL": JobState.FAILED,
    "OUT_OF_MEMORY": JobState.FAILED,
    "PENDING": JobState.PENDING,
    "POWER_UP_NODE": JobState.RUNNING,
    "PREEMPTED": JobState.FAILED,
    "RECONFIG_FAIL": JobState.FAILED,
    "REQUEUED": JobState.PENDING,
    "REQUEUE_FED": JobState.PENDING,
    "REQUEUE_HOLD": JobState.HELD,
    "RESIZING": JobState.RUNNING,
    "RESV_DEL_HOLD": JobState.HELD,
    "REVOKED": JobState.CANCELLED,
    "RUNNING": JobState.RUNNING,
    "SIGNALING": JobState.RUNNING,
    "SPECIAL_EXIT": JobState.HELD,
    "STAGE_OUT": JobState.RUNNING,
    "STOPPED": JobState.RUNNING,
    "SUSPENDED": JobState.RUNNING,
    "TIMEOUT": JobState.TIMEOUT,
}
_HELD_REASONS = frozenset({"JobHeldUser", "JobHeldAdmin"})
_NO_TIME = frozenset({"", "N/A", "Unknown", "None", "NONE"})


def parse_squeue(text: str) -> dict[str, JobStatus]:
    """Return the jobs of ``squeue`` in either format; lines that are no rows are left out."""
    rows = {}
    for line in text.splitlines():
        # At most so many parts: the reason, the last field, may hold "|".
        fields = line.split("|", len(QUERY_FIELDS) - 1)
        if len(fields) < len(QUERY_FIELDS) or not fields[0].strip().isdecimal():
            continue
        job_id, state, code, start, end, nodes, reason = (field.strip() for field in fields)
        exit_code, signal = _wait_status(code)
        rows[job_id] = _status(state, reason.removesuffix("|"), exit_code, signal, start, end, nodes)
    return rows


def parse_sacct(text: str) -> dict[str, JobStatus]:
    """Return the jobs of ``sacct -P`` with the fields of SACCT_FIELDS; steps and other lines are left out."""
    rows = {}
    for line in text.splitlines():
        fields = line.split("|")
        # Parts of arrays and steps ("17_1", "17.batch") are no jobs of ours.
        if len(fields) == 6 and fields[0].isdecimal():
            job_id, state, code, start, end, nodes = fields
            rows[job_id] = _status(state, "", *_code_and_signal(code), start, end, nodes)
    return rows


def parse_completions(text: str) -> dict[str, JobStatus]:
    """Return the jobs of ``sacct -c -P -o jobid,state,exitcode``: a log of completions, without a database."""
    rows = {}
    for line in text.splitlines():
        fields = line.split("|")
        if len(fields) == 3 and fields[0].isdecimal():
            rows[fields[0]] = _status(fields[1], "", *_code_and_signal(fields[2]), "", "", "")
    return rows


def parse_names(text: str) -> dict[str, str]:
    """Return job names by id from lines ``id|name``."""
    pairs = (line.split("|", 1) for line in text.splitlines() if "|" in line)
    return {job_id: name for job_id, name in pairs if job_id.isdecimal()}


def parse_sbatch(text: str) -> str | None:
    """Return the id of ``sbatch --parsable``: the last line of the form ``id`` or ``id;cluster``."""
    for line in reversed(text.splitlines()):
        match = re.fullmatch(r"(\d+)(?:;[\w-]+)?", line.strip())
        if match:
            return match[1]
    return None


def parse_scancel_errors(text: str) -> set[str]:
    """Return the ids of the jobs that scancel could not cancel; unknown and ended jobs are not among them."""
    lines = (line for line in text.splitlines() if "Invalid job id" not in line and "already" not in line)
    return {match for line in lines for match in re.findall(r"job (?:id )?(\d+)", line)}


def _status(
    state: str, reason: str, exit_code: int | None, signal: int | None, start: str, end: str, nodes: str
) -> JobStatus:
    word = state.split(" ")[0].rstrip("+").upper()  # "CANCELLED by 0", a cut "CANCELLED+"
    known = STATES.get(word) or _cut(word)
    # Slurm has no state for a held job: it is PENDING with a reason that will not go away by itself.
    if known is JobState.PENDING and reason in _HELD_REASONS:
        known = JobState.HELD
    ended = known is not None and known.terminal
    return JobStatus(
        known or JobState.UNKNOWN,
        reason="" if reason in {"None", "(null)"} else reason,
        message="" if known else f"Slurm says {state!r}",
        exit_code=exit_code if ended else None,
        signal=signal if ended else None,
        nodes=expand_hosts(nodes),
        started_at=None if known in (JobState.PENDING, JobState.HELD) else _time(start),
        ends_at=None if ended or known in (JobState.PENDING, JobState.HELD) else _time(end),
    )


def _cut(word: str) -> JobState | None:
    """Return the state of a word that a column cut off, if only one fits."""
    # Four letters at least: shorter ones fit too much, and a guess would be worse than UNKNOWN.
    fitting = {state for name, state in STATES.items() if len(word) >= 4 and name.startswith(word)}
    return fitting.pop() if len(fitting) == 1 else None


def _wait_status(text: str) -> tuple[int | None, int | None]:
    """Return exit code and signal of a raw wait status; also of ``code:signal``, as later versions print."""
    if not text.isdecimal():
        return _code_and_signal(text)
    # squeue prints the status as wait(2) gives it: the code in the high byte, the signal in the low seven bits.
    code, signal = int(text) >> 8, int(text) & 0x7F
    return (128 + signal, signal) if signal else (code, None)


def _code_and_signal(text: str) -> tuple[int | None, int | None]:
    code, _, signal = text.partition(":")
    if not code.isdecimal():
        return None, None
    number = int(signal) if signal.isdecimal() else 0
    return (128 + number, number) if number else (int(code), None)


def _time(text: str) -> float | None:
    return float(text) if text not in _NO_TIME and text.isdecimal() and int(text) > 0 else None
