"""Parsers of the commands of HTCondor: job states from their JSON. Pure.

A job of ours is a *cluster* of one or more *processes* (one a node); its state is made of theirs.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence

from flow_providers.interfaces.job_state import JobState
from flow_providers.interfaces.job_status import JobStatus

ATTRIBUTES = (
    "ClusterId",
    "ProcId",
    "JobStatus",
    "ExitCode",
    "ExitBySignal",
    "ExitSignal",
    "HoldReason",
    "RemoveReason",
    "RemoteHost",
    "JobCurrentStartDate",
    "JobBatchName",
)

_STATES = {
    1: JobState.PENDING,  # idle
    2: JobState.RUNNING,
    3: JobState.CANCELLED,  # removed
    4: JobState.COMPLETED,
    5: JobState.HELD,
    6: JobState.RUNNING,  # transferring output
    7: JobState.RUNNING,  # suspended
}
# the state of a cluster is the first of these that one of its processes has
_FIRST = (
    JobState.UNKNOWN,
    JobState.HELD,
    JobState.RUNNING,
    JobState.PENDING,
    JobState.TIMEOUT,
    JobState.CANCELLED,
    JobState.FAILED,
    JobState.COMPLETED,
)
_PERIODIC_REMOVE = "PeriodicRemove"  # in the reason of a removal by our expression on the walltime

Advertisement = Mapping[str, object]


def parse_queue(text: str) -> dict[str, JobStatus]:
    """Return the clusters of ``condor_q -json`` or ``condor_history -json``; nothing at all is an empty queue."""
    clusters: dict[str, list[JobStatus]] = {}
    for advertisement in parse_json(text):
        cluster = advertisement.get("ClusterId")
        if isinstance(cluster, int):
            clusters.setdefault(str(cluster), []).append(_status(advertisement))
    return {cluster: _together(processes) for cluster, processes in clusters.items()}


def parse_names(text: str) -> dict[str, str]:
    """Return batch names by cluster."""
    pairs = ((ad.get("ClusterId"), ad.get("JobBatchName")) for ad in parse_json(text))
    return {str(cluster): name for cluster, name in pairs if isinstance(cluster, int) and isinstance(name, str)}


def parse_json(text: str) -> list[Advertisement]:
    """Return the advertisements of one or several JSON lists; lines that are no JSON are left out."""
    decoder = json.JSONDecoder()
    found: list[Advertisement] = []
    # There may be several lists, with other lines between them.
    at = text.find("[")
    while at >= 0:
        try:
            answer, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            end = at + 1
        else:
            found.extend(item for item in answer if isinstance(item, dict))
        at = text.find("[", end)
    return found


def parse_submit(text: str) -> str | None:
    """Return the cluster of ``2 job(s) submitted to cluster 17.``; of several submissions the last."""
    found = re.findall(r"\d+ job\(s\) submitted to cluster (\d+)", text)
    return found[-1] if found else None


def parse_rm_refusals(text: str) -> set[str]:
    """Return the clusters that condor_rm refused to remove; those it does not find are gone."""
    lines = (line for line in text.splitlines() if "ermission denied" in line or "not authorized" in line)
    return {cluster for line in lines for cluster in re.findall(r"(?:cluster|job) (\d+)", line, re.IGNORECASE)}


def _status(ad: Advertisement) -> JobStatus:
    number = ad.get("JobStatus")
    state = _STATES.get(number, JobState.UNKNOWN) if isinstance(number, int) else JobState.UNKNOWN
    code, signal = _exit(ad)
    removed = _text(ad, "RemoveReason")
    # For HTCondor a job has completed whatever its exit code.
    if state is JobState.COMPLETED and code != 0:
        state = JobState.FAILED
    elif state is JobState.CANCELLED and _PERIODIC_REMOVE in removed:
        state = JobState.TIMEOUT
    started = ad.get("JobCurrentStartDate")
    host = _text(ad, "RemoteHost").rpartition("@")[2]
    return JobStatus(
        state,
        reason=_text(ad, "HoldReason") if state is JobState.HELD else removed,
        message="" if state is not JobState.UNKNOWN else f"HTCondor says JobStatus {number!r}",
        exit_code=code if state.terminal else None,
        signal=signal if state.terminal else None,
        nodes=(host,) if host and state is JobState.RUNNING else (),
        started_at=float(started) if isinstance(started, int) and state is JobState.RUNNING else None,
    )


def _exit(ad: Advertisement) -> tuple[int | None, int | None]:
    code, signal = ad.get("ExitCode"), ad.get("ExitSignal")
    if ad.get("ExitBySignal") is True and isinstance(signal, int):
        return 128 + signal, signal
    return (code, None) if isinstance(code, int) else (None, None)


def _together(processes: Sequence[JobStatus]) -> JobStatus:
    first = min(processes, key=lambda status: _FIRST.index(status.state))
    nodes = tuple(dict.fromkeys(_all(status.nodes for status in processes)))
    return JobStatus(
        first.state,
        reason=first.reason,
        message=first.message,
        exit_code=first.exit_code,
        signal=first.signal,
        nodes=nodes,
        started_at=first.started_at,
    )


def _all(parts: Iterable[tuple[str, ...]]) -> Iterable[str]:
    return (name for part in parts for name in part)


def _text(ad: Advertisement, name: str) -> str:
    value = ad.get(name)
    return value if isinstance(value, str) else ""
