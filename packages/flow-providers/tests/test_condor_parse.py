"""Advertisements in the shape of HTCondor's, and anything else."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, strategies as st

from flow_providers.cluster.condor import parse
from flow_providers.interfaces.job_state import JobState


def ad(cluster: int, status: int, proc: int = 0, **more: object) -> dict[str, object]:
    return {"ClusterId": cluster, "ProcId": proc, "JobStatus": status, **more}


def test_states_and_codes() -> None:
    rows = parse.parse_queue(
        json.dumps(
            [
                ad(1, 1),
                ad(2, 2, RemoteHost="slot1@node7", JobCurrentStartDate=1000),
                ad(3, 3, RemoveReason="via condor_rm (by user me)"),
                ad(4, 4, ExitCode=0, ExitBySignal=False),
                ad(5, 4, ExitCode=3, ExitBySignal=False),
                ad(6, 4, ExitBySignal=True, ExitSignal=9),
                ad(7, 5, HoldReason="Failed to open output"),
                ad(8, 3, RemoveReason="The job attribute PeriodicRemove expression '...' evaluated to TRUE"),
                ad(9, 77),
            ]
        )
    )
    assert {job: (row.state, row.exit_code) for job, row in rows.items()} == {
        "1": (JobState.PENDING, None),
        "2": (JobState.RUNNING, None),
        "3": (JobState.CANCELLED, None),
        "4": (JobState.COMPLETED, 0),
        "5": (JobState.FAILED, 3),
        "6": (JobState.FAILED, 137),
        "7": (JobState.HELD, None),
        "8": (JobState.TIMEOUT, None),
        "9": (JobState.UNKNOWN, None),
    }
    assert rows["2"].nodes == ("node7",)
    assert rows["7"].reason == "Failed to open output"


@pytest.mark.parametrize(
    ("statuses", "state"),
    [
        ((2, 1), JobState.RUNNING),
        ((2, 4), JobState.RUNNING),
        ((1, 4), JobState.PENDING),
        ((5, 2), JobState.HELD),
        ((3, 4), JobState.CANCELLED),
    ],
)
def test_a_cluster_has_the_state_its_processes_make(statuses, state) -> None:
    ads = [ad(1, status, proc, ExitCode=0) for proc, status in enumerate(statuses)]
    assert parse.parse_queue(json.dumps(ads))["1"].state is state


def test_an_empty_queue_prints_nothing() -> None:
    assert parse.parse_queue("") == {}


def test_lists_of_several_schedulers_and_lines_between_them_are_read() -> None:
    text = f"[warning] x\n{json.dumps([ad(1, 1)])}\nnote\n{json.dumps([ad(2, 2)])}\n"
    assert set(parse.parse_queue(text)) == {"1", "2"}


def test_the_cluster_of_a_submission() -> None:
    assert parse.parse_submit("Submitting job(s)..\n2 job(s) submitted to cluster 17.\n") == "17"
    assert parse.parse_submit("ERROR: Failed to connect") is None


def test_names_by_cluster() -> None:
    assert parse.parse_names(json.dumps([ad(1, 1, JobBatchName="fabc.x"), ad(2, 1)])) == {"1": "fabc.x"}


JSON = st.recursive(
    st.none() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["ClusterId", "JobStatus"]), inner),
    max_leaves=8,
)


@given(st.one_of(st.text(), st.text().map(lambda text: "[" + text), JSON.map(json.dumps)))
def test_no_parser_ever_fails(text) -> None:
    for read in (parse.parse_queue, parse.parse_names, parse.parse_submit, parse.parse_rm_refusals):
        read(text)


@given(st.lists(st.tuples(st.integers(1, 50), st.integers(0, 3), st.integers(1, 7)), max_size=30))
def test_every_cluster_is_read_and_ends_only_when_all_of_it_has(processes) -> None:
    rows = parse.parse_queue(json.dumps([ad(c, status, p, ExitCode=0) for c, p, status in processes]))
    assert set(rows) == {str(cluster) for cluster, _, _ in processes}
    for cluster, row in rows.items():
        mine = [status for c, _, status in processes if str(c) == cluster]
        assert row.state.terminal == all(status in (3, 4) for status in mine)
