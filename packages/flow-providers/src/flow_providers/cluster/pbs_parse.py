"""Parsers of the commands of the PBS family (Torque, PBS Pro, OpenPBS): job states from their output. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import timezone
from xml.etree import ElementTree

from flow_providers.cluster.local_time import seconds_of, zone_of
from flow_providers.exit_codes import SIGNAL_BASE, signal_of
from flow_providers.interfaces.job_state import JobState
from flow_providers.interfaces.job_status import JobStatus

_STATES = {
    "B": JobState.RUNNING,  # an array with running parts
    "E": JobState.RUNNING,  # ending
    "H": JobState.HELD,
    "M": JobState.RUNNING,  # moved to another server
    "Q": JobState.PENDING,
    "R": JobState.RUNNING,
    "S": JobState.RUNNING,  # suspended
    "T": JobState.PENDING,  # being moved
    "U": JobState.RUNNING,  # suspended for the user of the machine
    "W": JobState.PENDING,  # waiting for its time
}
_ENDED = frozenset("CFX")  # completed (Torque), finished, and an ended part of an array (PBS Pro)
_PBS_SIGNAL_BASE = 256  # PBS has exit status 256 + n for signal n
_WALLTIME_EXCEEDED = -29  # JOB_EXEC_KILL_WALLTIME of PBS Pro
_JOB = re.compile(r"^Job Id:\s*(\S+)", re.MULTILINE)
_ATTRIBUTE = re.compile(r"^\s+([A-Za-z_][\w.]*) = (.*)$")
_SUBMITTED = re.compile(r"^\s*(\d+(?:\[\])?(?:\.[\w.-]+)?)\s*$", re.MULTILINE)

Attributes = Mapping[str, str]


def parse_qstat(text: str) -> dict[str, JobStatus]:
    """Return the jobs of ``qstat -f``, ``qstat -x`` (XML) or ``qstat -f -F json``.

    A job that has ended without an exit status is left out: its end has to be looked up elsewhere.
    """
    # PBS prints local times of its host, so the command prints the offset of that host too.
    zone = zone_of(text)
    rows = ((job_id, status_of(attributes, zone)) for job_id, attributes in parse_jobs(text).items())
    return {job_id: row for job_id, row in rows if row is not None}


def parse_names(text: str) -> dict[str, str]:
    """Return job names by id, of any of the three forms."""
    return {job_id: attributes.get("Job_Name", "") for job_id, attributes in parse_jobs(text).items()}


def parse_jobs(text: str) -> dict[str, dict[str, str]]:
    """Return the attributes of jobs by id, of any of the three forms."""
    start = text.lstrip()
    if start.startswith("<"):
        return _from_xml(start)
    if start.startswith("{"):
        return _from_json(start)
    return _from_text(text)


def status_of(attributes: Attributes, zone: timezone | None) -> JobStatus | None:
    """Return the status that attributes say, or None when they only say that the job has ended."""
    letter = attributes.get("job_state", "").strip()
    if letter in _ENDED:
        return _ended(attributes)
    state = _STATES.get(letter, JobState.UNKNOWN)
    running = state is JobState.RUNNING
    started = attributes.get("stime") or attributes.get("start_time") or ""
    return JobStatus(
        state,
        reason="" if running else attributes.get("comment", letter),
        message="" if state is not JobState.UNKNOWN else f"PBS says {letter!r}",
        nodes=_nodes(attributes.get("exec_host", "")) if running else (),
        started_at=seconds_of(started, zone) if running else None,
    )


def parse_qsub(text: str) -> str | None:
    """Return the id that qsub printed: ``17``, ``17.server``, ``17[].server``; other lines may come before it."""
    found = _SUBMITTED.findall(text)
    # The last one: banners and notices of wrappers come before it.
    return found[-1] if found else None


def parse_tracejob(text: str) -> JobStatus | None:
    """Return how a job ended by the server's log; None: it does not say."""
    found = re.findall(r"Exit_status=(-?\d{1,6})\b", text)
    ended = _ended({"Exit_status": found[-1]}) if found else None
    if re.search(r"\b(?:Job deleted|delete[d]? at request of)\b", text, re.IGNORECASE):
        return replace(ended or JobStatus(JobState.CANCELLED), state=JobState.CANCELLED)
    return ended


def _ended(attributes: Attributes) -> JobStatus | None:
    text = attributes.get("Exit_status", attributes.get("exit_status", ""))
    if not re.fullmatch(r"-?\d{1,6}", text.strip()):
        return None
    code = int(text)
    comment = attributes.get("comment", "")
    nodes = _nodes(attributes.get("exec_host", ""))
    if code == _WALLTIME_EXCEEDED:
        return JobStatus(JobState.TIMEOUT, reason=comment, nodes=nodes)
    if code < 0:
        return JobStatus(JobState.FAILED, reason=comment, message=f"PBS could not run it ({code})", nodes=nodes)
    if signal_of(code - _PBS_SIGNAL_BASE + SIGNAL_BASE):
        code = code - _PBS_SIGNAL_BASE + SIGNAL_BASE
    state = JobState.COMPLETED if code == 0 else JobState.FAILED
    return JobStatus(state, reason=comment, exit_code=code, signal=signal_of(code), nodes=nodes)


def _from_text(text: str) -> dict[str, dict[str, str]]:
    jobs: dict[str, dict[str, str]] = {}
    current: dict[str, str] = {}
    last = ""
    for line in text.splitlines():
        header = _JOB.match(line)
        attribute = _ATTRIBUTE.match(line)
        if header:
            current, last = jobs.setdefault(header[1], {}), ""
        elif attribute:
            last = attribute[1]
            current[last] = attribute[2]
        elif line.startswith("\t") and last:  # long values go on in further lines
            current[last] += line.strip()
    return jobs


def _from_xml(text: str) -> dict[str, dict[str, str]]:
    try:
        # Cut at the last tag: the line with the time zone follows the document.
        root = ElementTree.fromstring(text[: text.rfind(">") + 1])
    except ElementTree.ParseError:
        return {}
    jobs = {job.findtext("Job_Id", "").strip(): job for job in root.iter("Job")}
    return {job_id: {item.tag: (item.text or "").strip() for item in job} for job_id, job in jobs.items() if job_id}


def _from_json(text: str) -> dict[str, dict[str, str]]:
    try:
        # raw_decode: the line with the time zone follows the document. RecursionError: brackets nested deeper than
        # Python's stack.
        answer, _ = json.JSONDecoder().raw_decode(text)
    except (ValueError, RecursionError):
        return {}
    jobs = answer.get("Jobs") if isinstance(answer, dict) else None
    if not isinstance(jobs, dict):
        return {}
    return {
        job_id: {key: str(value) for key, value in attributes.items() if isinstance(value, str | int | float)}
        for job_id, attributes in jobs.items()
        if isinstance(attributes, dict)
    }


def _nodes(exec_host: str) -> tuple[str, ...]:
    """Return the names of ``n1/0*2+n2/0*2``, each once."""
    return tuple(dict.fromkeys(part.partition("/")[0] for part in exec_host.split("+") if part.partition("/")[0]))
