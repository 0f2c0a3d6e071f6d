"""From pods, as the API describes them, to the states of jobs. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from flow_providers.exit_codes import SIGNAL_BASE, signal_of
from flow_providers.interfaces.job_state import JobState
from flow_providers.interfaces.job_status import JobStatus
from flow_providers.kubernetes.names import JOB

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]
Object = Mapping[str, Json]

_PHASES = {
    "Pending": JobState.PENDING,
    "Running": JobState.RUNNING,
    "Succeeded": JobState.COMPLETED,
    "Failed": JobState.FAILED,
}


def jobs_of(pods: Sequence[Object], walltime_s: float | None) -> dict[str, JobStatus]:
    """Return the status of each job by its pods: one a node."""
    by_job: dict[str, list[JobStatus]] = {}
    for pod in pods:
        job = text(at(pod, "metadata", "labels"), JOB)
        if job:
            by_job.setdefault(job, []).append(pod_status(pod, walltime_s))
    return {job: job_status(nodes) for job, nodes in by_job.items()}


def job_status(pods: Sequence[JobStatus]) -> JobStatus:
    """Return the status of a job of several pods: it runs while one does, and fails as the first that failed."""
    by_state: dict[JobState, JobStatus] = {}
    for pod in pods:
        by_state.setdefault(pod.state, pod)
    order = [
        JobState.UNKNOWN,
        JobState.RUNNING,
        JobState.PENDING,
        JobState.CANCELLED,
        JobState.TIMEOUT,
        JobState.FAILED,
    ]
    chosen = next((by_state[state] for state in order if state in by_state), pods[0])
    if len(pods) == 1:
        return chosen
    return JobStatus(
        chosen.state,
        chosen.reason,
        chosen.message,
        chosen.exit_code,
        chosen.signal,
        nodes=tuple(node for pod in pods for node in pod.nodes),
        started_at=min((pod.started_at for pod in pods if pod.started_at is not None), default=None),
        ends_at=min((pod.ends_at for pod in pods if pod.ends_at is not None), default=None),
    )


def pod_status(pod: Object, walltime_s: float | None) -> JobStatus:
    """Return the status of one pod, with Kubernetes' own reason."""
    status = at(pod, "status")
    state = _PHASES.get(text(status, "phase"), JobState.UNKNOWN)
    container = _container(status)
    ended = at(container, "state", "terminated")
    exit_code = number(ended, "exitCode")
    state = _why_it_failed(pod, state, exit_code)
    reason, message = _reason(status, container)
    started = _seconds(text(at(container, "state", "running"), "startedAt") or text(ended, "startedAt"))
    begun = _seconds(text(status, "startTime"))  # the limit counts from here
    node = text(at(pod, "spec"), "nodeName")
    return JobStatus(
        state,
        reason,
        message,
        exit_code=exit_code,
        signal=signal_of(exit_code),
        nodes=(node,) if node else (),
        started_at=started,
        ends_at=begun + walltime_s if begun is not None and walltime_s is not None else None,
    )


def _why_it_failed(pod: Object, state: JobState, exit_code: int | None) -> JobState:
    if state is not JobState.FAILED:
        return state
    if text(at(pod, "status"), "reason") == "DeadlineExceeded":
        return JobState.TIMEOUT
    deleted = text(at(pod, "metadata"), "deletionTimestamp")
    # Deleted by somebody, ourselves perhaps, unless Kubernetes itself removed it (eviction, drain): that is a failure,
    # to be replaced.
    if deleted and not _condition(at(pod, "status"), "DisruptionTarget", "True") and (exit_code or 0) > SIGNAL_BASE:
        return JobState.CANCELLED
    return state


def _reason(status: Object, container: Object) -> tuple[str, str]:
    """Return the most telling reason and its message: of the pod, its container, or what it waits for."""
    sources = (
        status,
        at(container, "state", "waiting"),
        at(container, "state", "terminated"),
        _condition(status, "DisruptionTarget", "True"),
        _condition(status, "PodScheduled", "False"),
    )
    for source in sources:
        if text(source, "reason") not in ("", "Completed", "ContainerCreating"):
            return text(source, "reason"), text(source, "message").strip()
    return text(at(container, "state", "waiting"), "reason"), ""


def _container(status: Object) -> Object:
    states = status.get("containerStatuses")
    first = states[0] if isinstance(states, list) and states else None
    return first if isinstance(first, dict) else {}


def _condition(status: Object, kind: str, value: str) -> Object:
    conditions = status.get("conditions")
    for condition in conditions if isinstance(conditions, list) else []:
        if isinstance(condition, dict) and condition.get("type") == kind and condition.get("status") == value:
            return condition
    return {}


def at(document: Object, *keys: str) -> Object:
    """Return the object found under some keys; empty where there is none."""
    for key in keys:
        inner = document.get(key)
        document = inner if isinstance(inner, dict) else {}
    return document


def text(document: Object, key: str) -> str:
    """Return a string; empty where there is none."""
    value = document.get(key)
    return value if isinstance(value, str) else ""


def number(document: Object, key: str) -> int | None:
    """Return an integer, or None."""
    value = document.get(key)
    return value if isinstance(value, int) else None


def items(document: Object) -> list[Object]:
    """Return the objects of a list."""
    found = document.get("items")
    return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []


def _seconds(stamp: str) -> float | None:
    try:
        return datetime.fromisoformat(stamp).timestamp()
    except ValueError:
        return None
