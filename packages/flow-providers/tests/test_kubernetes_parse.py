"""From pods to states, and from options to manifests, without a cluster."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from flow_providers.errors import BadOption
from flow_providers.interfaces.job_state import JobState
from flow_providers.interfaces.job_status import JobStatus
from flow_providers.kubernetes.manifest import unexpanded
from flow_providers.kubernetes.names import amount, base_name, check_name, job_id, pod_name, selector
from flow_providers.kubernetes.parse import Json, job_status, jobs_of, pod_status
from flow_providers.kubernetes.provider import KubernetesProvider
from flow_testing.clouds.kubelet import expanded

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=12,
)


def pod(phase: str, *, deleted: bool = False, **status: Json) -> dict[str, Json]:
    metadata: dict[str, Json] = {"name": "p", "labels": {"flow-job": "j", "flow-tag": "f"}}
    if deleted:
        metadata["deletionTimestamp"] = "2026-01-02T03:04:05Z"
    return {"metadata": metadata, "spec": {"nodeName": "n1"}, "status": {"phase": phase, **status}}


def ended(code: int, reason: str = "Error") -> list[Json]:
    return [{"state": {"terminated": {"exitCode": code, "reason": reason, "startedAt": "1970-01-01T00:01:00Z"}}}]


def test_a_running_pod_tells_its_node_start_and_end() -> None:
    running: list[Json] = [{"state": {"running": {"startedAt": "1970-01-01T00:01:40Z"}}}]
    status = pod_status(pod("Running", startTime="1970-01-01T00:01:30Z", containerStatuses=running), 60)
    assert status == JobStatus(JobState.RUNNING, nodes=("n1",), started_at=100, ends_at=150)


@pytest.mark.parametrize(
    ("code", "reason", "state", "signal"),
    [
        (0, "Completed", JobState.COMPLETED, None),
        (3, "Error", JobState.FAILED, None),
        (137, "OOMKilled", JobState.FAILED, 9),
    ],
)
def test_an_ended_pod_tells_how(code: int, reason: str, state: JobState, signal: int | None) -> None:
    phase = "Succeeded" if code == 0 else "Failed"
    status = pod_status(pod(phase, containerStatuses=ended(code, reason)), None)
    assert (status.state, status.exit_code, status.signal) == (state, code, signal)
    assert status.reason == ("" if code == 0 else reason)


def test_an_evicted_pod_has_failed_with_the_reason() -> None:
    status = pod_status(pod("Failed", reason="Evicted", message="The node was low on memory."), None)
    assert (status.state, status.reason, status.message) == (
        JobState.FAILED,
        "Evicted",
        "The node was low on memory.",
    )


def test_a_pod_somebody_deleted_is_cancelled() -> None:
    status = pod_status(pod("Failed", deleted=True, containerStatuses=ended(143)), None)
    assert status.state is JobState.CANCELLED


def test_a_preempted_pod_has_failed_with_the_reason() -> None:
    preempted: list[Json] = [{"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler"}]
    found = pod_status(pod("Failed", deleted=True, conditions=preempted), None)
    assert (found.state, found.reason) == (JobState.FAILED, "PreemptionByScheduler")


def test_a_pod_on_a_lost_node_is_unknown() -> None:
    assert pod_status(pod("Unknown", reason="NodeLost"), None).state is JobState.UNKNOWN


@pytest.mark.parametrize("reason", ["ImagePullBackOff", "CreateContainerConfigError", "CrashLoopBackOff"])
def test_a_waiting_pod_tells_why(reason: str) -> None:
    waiting: list[Json] = [{"state": {"waiting": {"reason": reason, "message": "so"}}}]
    status = pod_status(pod("Pending", containerStatuses=waiting), None)
    assert (status.state, status.reason, status.message) == (JobState.PENDING, reason, "so")


def test_a_job_of_several_pods_runs_while_one_does_and_fails_as_one_did() -> None:
    running, done = JobStatus(JobState.RUNNING), JobStatus(JobState.COMPLETED)
    failed = JobStatus(JobState.FAILED, exit_code=4)
    assert job_status([done, failed, running]).state is JobState.RUNNING
    assert job_status([done, failed]).exit_code == 4
    assert job_status([done, done]).state is JobState.COMPLETED


@given(st.lists(st.dictionaries(st.sampled_from(["metadata", "status", "spec"]), JSON), max_size=3))
def test_garbage_is_never_an_error(pods: list[dict[str, Json]]) -> None:
    assert set(jobs_of(pods, 10)) <= {str(p["metadata"]) for p in pods if "metadata" in p}


@given(st.text())
def test_text_arrives_through_kubernetes_expansion_as_it_is(text: str) -> None:
    assert expanded(unexpanded(text), {"HOME": "/", "": "x"}) == text


@given(st.text(), st.integers(0, 10**13 - 1))
def test_any_job_name_makes_a_name_that_kubernetes_takes(name: str, now: int) -> None:
    made = job_id(base_name(name), now, "ab12")
    assert len(made) <= 63
    assert check_name("x", base_name(name)) == base_name(name)
    assert pod_name(made, 3, 9) == f"{made}-3"


def test_a_few_jobs_are_named_in_the_selector_and_many_are_not() -> None:
    assert selector(["a", "b"]) == "flow-tag,flow-job in (a,b)"
    assert selector([]) == selector([str(i) for i in range(51)]) == "flow-tag"


def test_quantities_are_numbers_with_units() -> None:
    assert (amount("m", "500Mi"), amount("m", "1.5Gi"), amount("m", "100m")) == (500 * 2**20, 1.5 * 2**30, 0.1)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"max_mem": "500 MB"}, "max_mem='500 MB'"),
        ({"pod_name": "my_pod"}, "pod_name='my_pod'"),
        ({"user_id": "root"}, "user_id='root'"),
        ({"persistent_volumes": [("data", "mnt")]}, "persistent_volumes"),
        ({"init_cpu": 9.0}, "init_cpu"),
        ({"walltime": "soon"}, "soon"),
    ],
)
def test_wrong_options_are_named(options: dict[str, object], named: str) -> None:
    with pytest.raises(BadOption, match=named):
        KubernetesProvider("image", **options)  # type: ignore[arg-type]  # the point of the test
