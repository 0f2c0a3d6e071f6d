"""Parsers of the commands of LSF: job states from bjobs. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping

from flow_providers.exit_codes import signal_of
from flow_providers.interfaces.job_state import JobState
from flow_providers.interfaces.job_status import JobStatus

FIELDS = ("jobid", "stat", "exit_code", "exit_reason", "pend_reason", "exec_host")
JSON_FORMAT = " ".join(FIELDS)
TEXT_FORMAT = f"{JSON_FORMAT} delimiter='|'"

_STATES = {
    "PEND": JobState.PENDING,
    "PROV": JobState.PENDING,
    "WAIT": JobState.PENDING,
    "PSUSP": JobState.HELD,
    "RUN": JobState.RUNNING,
    "USUSP": JobState.RUNNING,
    "SSUSP": JobState.RUNNING,
    "DONE": JobState.COMPLETED,
    "EXIT": JobState.FAILED,
    "ZOMBI": JobState.FAILED,
}
_NOTHING = frozenset({"", "-"})


def parse_bjobs(text: str) -> dict[str, JobStatus]:
    """Return the jobs of ``bjobs -json -o``, or of ``bjobs -noheader -o`` with the delimiter ``|``."""
    records = _from_json(text) if text.lstrip().startswith("{") else _from_text(text)
    return {job_id: _status(record) for record in records if (job_id := record.get("JOBID", "")).isdecimal()}


def parse_names(text: str) -> dict[str, str]:
    """Return names by id from lines ``id|name``."""
    pairs = (line.split("|", 1) for line in text.splitlines() if "|" in line)
    return {job_id.strip(): name.strip() for job_id, name in pairs if job_id.strip().isdecimal()}


def parse_bsub(text: str) -> str | None:
    """Return the id of ``Job <17> is submitted to queue <normal>.``."""
    found = re.findall(r"Job <(\d+)> is submitted", text)
    return found[-1] if found else None


def parse_bkill_refusals(text: str) -> set[str]:
    """Return the ids of the jobs that bkill refused to kill; jobs that have finished or do not exist are gone."""
    lines = (line for line in text.splitlines() if "denied" in line or "not allowed" in line)
    return {job_id for line in lines for job_id in re.findall(r"Job <(\d+)>", line)}


def _status(record: Mapping[str, str]) -> JobStatus:
    word = record.get("STAT", "")
    state = _STATES.get(word, JobState.UNKNOWN)
    why = record.get("EXIT_REASON", "")
    # LSF has one state, EXIT, for all bad ends; only the reason tells them apart.
    if state is JobState.FAILED and "TERM_RUNLIMIT" in why:
        state = JobState.TIMEOUT
    elif state is JobState.FAILED and ("TERM_OWNER" in why or "TERM_ADMIN" in why):
        state = JobState.CANCELLED
    code = _code(record.get("EXIT_CODE", ""), state)
    waiting = state in (JobState.PENDING, JobState.HELD)
    reason = record.get("PEND_REASON", "") if waiting else why
    return JobStatus(
        state,
        reason="" if reason in _NOTHING else reason,
        message="" if state is not JobState.UNKNOWN else f"LSF says {word!r}",
        exit_code=code,
        signal=signal_of(code),
        nodes=_nodes(record.get("EXEC_HOST", "")),
    )


def _code(text: str, state: JobState) -> int | None:
    if state is JobState.COMPLETED:
        return 0
    return int(text) if state.terminal and re.fullmatch(r"\d{1,6}", text.strip()) else None


def _from_json(text: str) -> Iterator[Mapping[str, str]]:
    try:
        answer, _ = json.JSONDecoder().raw_decode(text.lstrip())
    except (ValueError, RecursionError):
        return
    records = answer.get("RECORDS") if isinstance(answer, dict) else None
    for record in records if isinstance(records, list) else []:
        if isinstance(record, dict) and "STAT" in record:
            yield {key: str(value) for key, value in record.items()}


def _from_text(text: str) -> Iterator[Mapping[str, str]]:
    for line in text.splitlines():
        fields = [field.strip() for field in line.split("|")]
        if len(fields) >= len(FIELDS):
            # only the pending reason, the last but one, may hold the delimiter
            last = fields[-1]
            reason = "|".join(fields[4:-1])
            yield dict(zip((name.upper() for name in FIELDS), [*fields[:4], reason, last], strict=True))


def _nodes(hosts: str) -> tuple[str, ...]:
    """Return the names of ``4*n1:4*n2``, each once."""
    names = (part.rpartition("*")[2] for part in hosts.split(":"))
    return tuple(dict.fromkeys(name for name in names if name not in _NOTHING))
