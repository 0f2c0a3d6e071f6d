"""Parsers of the commands of Grid Engine: job states from qstat and qacct. Pure."""

from __future__ import annotations

import re
from datetime import timezone
from xml.etree import ElementTree

from flow_providers.cluster.local_time import seconds_of, zone_of
from flow_providers.exit_codes import signal_of
from flow_providers.interfaces.job_state import JobState
from flow_providers.interfaces.job_status import JobStatus

_ROW = re.compile(r"\s*(\d+)\s+[\d.]+\s+\S+\s+\S+\s+([A-Za-z]+)\s+\d\d/\d\d/\d{4}\s")
_SUBMITTED = re.compile(r"^(\d+)(?:\.[\d:-]+)?$", re.MULTILINE)
_H_RT = "h_rt"
_FAILED_BY_LIMIT = 37  # "qmaster enforced h_rt, h_cpu, or h_vmem limit"


def parse_qstat(text: str) -> dict[str, JobStatus]:
    """Return the jobs of ``qstat -xml``, or of plain ``qstat`` where it has no XML; an empty queue is empty."""
    start, end = text.find("<?xml"), text.rfind(">")
    if start < 0:
        rows = (match for match in map(_ROW.match, text.splitlines()) if match)
        return {row[1]: JobStatus(state_of(row[2]), reason=row[2]) for row in rows}
    try:
        root = ElementTree.fromstring(text[start : end + 1])
    except ElementTree.ParseError:
        return {}
    zone = zone_of(text[end + 1 :])
    jobs = ((job.findtext("JB_job_number", "").strip(), job) for job in root.iter("job_list"))
    return {job_id: _row(job, zone) for job_id, job in jobs if job_id.isdecimal()}


def parse_names(text: str) -> dict[str, str]:
    """Return job names by id of ``qstat -xml``."""
    start, end = text.find("<?xml"), text.rfind(">")
    try:
        root = ElementTree.fromstring(text[start : end + 1]) if start >= 0 else None
    except ElementTree.ParseError:
        root = None
    jobs = [] if root is None else root.iter("job_list")
    return {job.findtext("JB_job_number", "").strip(): job.findtext("JB_name", "").strip() for job in jobs}


def state_of(letters: str) -> JobState:
    """Return the state of qstat's letters, such as ``qw``, ``hqw``, ``Eqw``, ``r``, ``dr``, ``Rr``."""
    # First: "Eqw" and "hqw" hold "q" and "w" too, and would pass for pending jobs that start by themselves.
    if "E" in letters or ("h" in letters and "q" in letters):
        return JobState.HELD
    if "q" in letters or "w" in letters:
        return JobState.PENDING
    if letters and set(letters) <= set("rtRsSTdNP"):
        return JobState.RUNNING
    return JobState.UNKNOWN  # z: ended, and the accounting knows how


def parse_qacct(text: str) -> dict[str, JobStatus]:
    """Return the jobs of one or more answers of ``qacct -j``; the last record of an id counts."""
    rows = {}
    # A longer line of "=" stands between two records of qacct.
    for record in text.split("=" * 20):
        values = dict(_pairs(record))
        job_id = values.get("jobnumber", "")
        if job_id.isdecimal() and "exit_status" in values:
            rows[job_id] = _ended(values)
    return rows


def parse_qsub(text: str) -> str | None:
    """Return the id that ``qsub -terse`` prints, also for an array; warnings may come before it."""
    found = _SUBMITTED.findall(text)
    return found[-1] if found else None


def parse_qdel_refusals(text: str) -> set[str]:
    """Return the ids of the jobs that qdel refused to delete; jobs that do not exist are gone."""
    lines = (line for line in text.splitlines() if "denied" in line and "does not exist" not in line)
    return {job_id for line in lines for job_id in re.findall(r'job "?(\d+)', line)}


def _row(job: ElementTree.Element, zone: timezone | None) -> JobStatus:
    letters = job.findtext("state", "").strip()
    state = state_of(letters)
    queue = job.findtext("queue_name") or ""
    broken = "E" in letters
    return JobStatus(
        state,
        reason="" if state is JobState.RUNNING else letters,
        message="it is in an error state and will not start: `qstat -j` on it says why" if broken else "",
        nodes=(queue.partition("@")[2],) if "@" in queue and state is JobState.RUNNING else (),
        started_at=seconds_of(job.findtext("JAT_start_time") or "", zone) if state is JobState.RUNNING else None,
    )


def _ended(values: dict[str, str]) -> JobStatus:
    failed, failed_text = _number(values.get("failed", ""))
    code, _ = _number(values["exit_status"])
    message = failed_text.lstrip(" :")
    if failed == _FAILED_BY_LIMIT or _H_RT in failed_text:
        state = JobState.TIMEOUT
    elif values.get("deleted_by", "NONE") not in {"NONE", ""}:
        state = JobState.CANCELLED
    elif code == 0 and failed in (0, None):
        state = JobState.COMPLETED
    else:
        state = JobState.FAILED
    return JobStatus(state, reason=message, exit_code=code, signal=signal_of(code), nodes=(values.get("hostname", ""),))


def _pairs(record: str) -> list[tuple[str, str]]:
    split = (line.split(None, 1) for line in record.splitlines())
    return [(parts[0], parts[1].strip() if len(parts) > 1 else "") for parts in split if parts]


def _number(text: str) -> tuple[int | None, str]:
    match = re.match(r"(\d{1,9})\b(.*)", text)
    return (int(match[1]), match[2].strip()) if match else (None, text)
