"""Parsers of the commands of Cobalt and of its job logs: job states from their text. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from flow_providers.exit_codes import SIGNAL_BASE, signal_of
from flow_providers.interfaces.job_state import JobState
from flow_providers.interfaces.job_status import JobStatus

_STATES = {
    "queued": JobState.PENDING,
    "starting": JobState.RUNNING,
    "running": JobState.RUNNING,
    "exiting": JobState.RUNNING,
    "killing": JobState.RUNNING,
    "preempting": JobState.RUNNING,
    "preempted": JobState.PENDING,
    "user_hold": JobState.HELD,
    "admin_hold": JobState.HELD,
    "dep_hold": JobState.HELD,
    "dep_fail": JobState.HELD,
    "maxrun_hold": JobState.PENDING,  # as many jobs of this user run as may: it goes on by itself
}
_ENDED = frozenset({"done"})  # without the exit code
_NOWHERE = frozenset({"", "None", "N/A"})
_FIELD = re.compile(r"^\s+(\w[\w ]*?)\s*: ?(.*)$")
_HEADER = re.compile(r"^JobID\s*:\s*(\S+)\s*$")
_REFUSED = ("not permitted", "permission denied", "not allowed", "not owned by")
# The phrases of the log differ between versions and sites, so several wordings of each fact are recognised.
_CODE = re.compile(r"(?:exit|return) ?(?:code|status|value)[\s:=]+(?:of |was |is )?(-?\d{1,6})\b")
_TIME_IS_UP = re.compile(
    r"(?:time|walltime)(?: limit)?(?: was| has been)? (?:exceeded|expired|reached)|exceeded (?:its|the|max\w*) \w*time"
)
_DELETED = re.compile(r"\b(?:user|administrator|admin|operator)\b.{0,30}\b(?:delet|kill|cancel)|\bdelete requested")
_KILLED = re.compile(r"(?:kill|terminat|end)\w* (?:by|with|on) (?:a )?signal[\s:=]+(\d{1,2})\b")
_VARIABLE = re.compile(r"^\w+=")


def parse_qstat(text: str) -> dict[str, JobStatus]:
    """Return the jobs of ``qstat -lf``, or of the table of ``qstat``."""
    rows = ((fields.get("JobID", ""), _status(fields)) for fields in _records(text))
    return {job_id: row for job_id, row in rows if row is not None and job_id.isdecimal()}


def parse_names(text: str) -> dict[str, str]:
    """Return job names by id, of ``qstat -lf``."""
    return {
        fields["JobID"]: fields.get("JobName", "") for fields in _records(text) if fields.get("JobID", "").isdecimal()
    }


def parse_qsub(text: str) -> str | None:
    """Return the id: the last line that is a number; notices may come before it."""
    found = re.findall(r"^\s*(\d+)\s*$", text, re.MULTILINE)
    return found[-1] if found else None


def parse_qdel_refusals(text: str) -> set[str]:
    """Return the ids of the jobs that qdel refused to end; jobs that it does not find are gone."""
    lines = (line for line in text.splitlines() if any(words in line.lower() for words in _REFUSED))
    return {job_id for line in lines for job_id in re.findall(r"\b\d+\b", line)}


def parse_log(text: str) -> JobStatus | None:
    """Return how a job ended by the log that Cobalt writes beside its output; None: it does not say."""
    # the environment of the job stands in the log too, and may hold anything
    said = "\n".join(line for line in text.lower().splitlines() if not _VARIABLE.match(line))
    code, signal = _code_and_signal(said)
    # Before the exit code, which is then only that of the signal.
    if _TIME_IS_UP.search(said):
        return JobStatus(JobState.TIMEOUT, exit_code=code)
    if _DELETED.search(said):
        return JobStatus(JobState.CANCELLED, exit_code=code)
    if code is None:
        return None
    return JobStatus(JobState.COMPLETED if code == 0 else JobState.FAILED, exit_code=code, signal=signal)


def _code_and_signal(said: str) -> tuple[int | None, int | None]:
    codes = _CODE.findall(said)
    signals = [f"-{number}" for number in _KILLED.findall(said)]
    if not codes + signals:
        return None, None
    code = int((codes + signals)[-1])
    code = SIGNAL_BASE - code if code < 0 else code
    return code, signal_of(code)


def _status(fields: Mapping[str, str]) -> JobStatus | None:
    said = fields.get("State", "").strip()
    word = said.split(" ")[0].lower()
    if word in _ENDED or not word:
        return None
    state = _STATES.get(word, JobState.HELD if word.endswith("_hold") else JobState.UNKNOWN)
    running = state is JobState.RUNNING
    return JobStatus(
        state,
        reason="" if running else said,
        message="" if state is not JobState.UNKNOWN else f"Cobalt says {said!r}",
        nodes=_nodes(fields.get("Location", "")) if running else (),
    )


def _records(text: str) -> Iterator[dict[str, str]]:
    return _from_long(text) if re.search(r"^JobID\s*:", text, re.MULTILINE) else _from_table(text)


def _from_long(text: str) -> Iterator[dict[str, str]]:
    current: dict[str, str] = {}
    for line in text.splitlines():
        header = _HEADER.match(line)
        field = _FIELD.match(line)
        if header:
            if current:
                yield current
            current = {"JobID": header[1]}
        elif field and current:
            # The first line of a name counts, since a later one of that form may belong to a value of several lines.
            current.setdefault(field[1], field[2].strip())
    if current:
        yield current


def _from_table(text: str) -> Iterator[dict[str, str]]:
    """Read columns that are as wide as their widest value: their beginnings are those of the names above them."""
    lines = text.splitlines()
    top = next((i for i, line in enumerate(lines) if line.startswith("JobID")), None)
    if top is None:
        return
    starts = [match.start() for match in re.finditer(r"\S+", lines[top])]
    bounds = list(zip(starts, [*starts[1:], None], strict=True))
    names = [lines[top][begin:end].strip() for begin, end in bounds]
    for line in lines[top + 1 :]:
        if line.strip("= "):
            yield {name: line[begin:end].strip() for name, (begin, end) in zip(names, bounds, strict=True)}


def _nodes(location: str) -> tuple[str, ...]:
    """Return the names of a location: ``n1,n2``, ``['n1', 'n2']``, or of a machine's own form, as it is."""
    names = (part.strip(" '\"[]") for part in location.split(","))
    return tuple(dict.fromkeys(name for name in names if name not in _NOWHERE))
