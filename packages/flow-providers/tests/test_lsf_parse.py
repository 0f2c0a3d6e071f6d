"""Outputs in the shape of LSF 10.1, and anything else."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, strategies as st

from flow_providers.cluster.lsf import parse
from flow_providers.interfaces.job_state import JobState


def record(job: str, stat: str, **more: str) -> dict[str, str]:
    return {"JOBID": job, "STAT": stat, "EXIT_CODE": "", "EXIT_REASON": "", "PEND_REASON": "", "EXEC_HOST": "", **more}


def answer(*records: dict[str, str]) -> str:
    return json.dumps({"COMMAND": "bjobs", "JOBS": len(records), "RECORDS": list(records)})


def test_states_of_the_json_form() -> None:
    rows = parse.parse_bjobs(
        answer(
            record("1", "PEND", PEND_REASON="Job slot limit reached;"),
            record("2", "RUN", EXEC_HOST="4*n1:4*n2"),
            record("3", "DONE"),
            record("4", "EXIT", EXIT_CODE="3"),
            record("5", "EXIT", EXIT_CODE="140", EXIT_REASON="TERM_RUNLIMIT: job killed after reaching LSF run limit"),
            record("6", "EXIT", EXIT_CODE="130", EXIT_REASON="TERM_OWNER: job killed by owner"),
            record("7", "PSUSP"),
            record("8", "UNKWN"),
            {"JOBID": "99", "ERROR": "Job <99> is not found"},
        )
    )
    assert {job: (row.state, row.exit_code) for job, row in rows.items()} == {
        "1": (JobState.PENDING, None),
        "2": (JobState.RUNNING, None),
        "3": (JobState.COMPLETED, 0),
        "4": (JobState.FAILED, 3),
        "5": (JobState.TIMEOUT, 140),
        "6": (JobState.CANCELLED, 130),
        "7": (JobState.HELD, None),
        "8": (JobState.UNKNOWN, None),
    }
    assert rows["1"].reason == "Job slot limit reached;"
    assert rows["2"].nodes == ("n1", "n2")


def test_the_delimited_form_says_the_same() -> None:
    rows = parse.parse_bjobs("1|PEND|-|-|reason | with bars|-\n2|EXIT|3|-|-|n1\nJob <9> is not found\n")
    assert (rows["1"].state, rows["1"].reason) == (JobState.PENDING, "reason|with bars")
    assert (rows["2"].exit_code, rows["2"].nodes) == (3, ("n1",))


def test_the_id_of_a_submission() -> None:
    assert parse.parse_bsub("hello\nJob <17> is submitted to default queue <normal>.\n") == "17"
    assert parse.parse_bsub("Job not submitted.") is None


def test_only_refusals_of_bkill_count() -> None:
    text = "Job <1> is being terminated\nJob <2>: Job has already finished\nJob <3>: User permission denied\n"
    assert parse.parse_bkill_refusals(text) == {"3"}


JSON = st.recursive(
    st.none() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["RECORDS", "STAT", "JOBID"]), inner),
    max_leaves=8,
)


@given(st.one_of(st.text(), st.text().map(lambda text: "{" + text), JSON.map(json.dumps)))
def test_no_parser_ever_fails(text) -> None:
    for read in (parse.parse_bjobs, parse.parse_names, parse.parse_bsub, parse.parse_bkill_refusals):
        read(text)


@given(st.dictionaries(st.integers(1, 10**9).map(str), st.sampled_from(["PEND", "RUN", "DONE", "EXIT", "PSUSP"])))
def test_both_forms_give_the_same_rows(jobs) -> None:
    in_json = parse.parse_bjobs(answer(*(record(job, stat) for job, stat in jobs.items())))
    in_text = parse.parse_bjobs("".join(f"{job}|{stat}|-|-|-|-\n" for job, stat in jobs.items()))
    assert in_json == in_text
    assert set(in_json) == set(jobs)


@pytest.mark.parametrize(("text", "nodes"), [("n1", ("n1",)), ("4*n1:2*n2:4*n1", ("n1", "n2")), ("-", ()), ("", ())])
def test_hosts(text, nodes) -> None:
    assert parse.parse_bjobs(answer(record("1", "RUN", EXEC_HOST=text)))["1"].nodes == nodes


def directives(tmp_path, **options):
    from flow_providers import LSFProvider
    from flow_providers.channels.local import LocalChannel
    from flow_providers.errors import SubmitException

    # there is no bsub here: only the script is looked at
    provider = LSFProvider(channel=LocalChannel(script_dir=str(tmp_path), envs={"PATH": "/usr/bin:/bin"}), **options)
    with pytest.raises(SubmitException):
        provider.submit("true", 1)
    (script,) = tmp_path.glob("*.sh")
    return [line.removeprefix("#BSUB ") for line in script.read_text().splitlines() if line.startswith("#BSUB")]


@pytest.mark.parametrize(
    ("options", "asked", "not_asked"),
    [
        ({}, ["-nnodes 1"], "-n "),
        ({"cores_per_node": 4}, ["-n 4", '-R "span[hosts=1]"'], "-nnodes"),
        ({"cores_per_node": 4, "nodes_per_block": 2}, ["-n 8", '-R "span[ptile=4]"'], "-nnodes"),
        ({"mem_per_node": 2.0}, ["-n 1", '-R "rusage[mem=2048MB]"'], "-nnodes"),
        ({"cores_per_node": 4, "request_by_nodes": True}, ["-nnodes 1"], "-n "),
        ({"request_by_nodes": False}, ["-n 1"], "-nnodes"),
    ],
)
def test_what_workers_are_told_is_asked_of_lsf(tmp_path, options, asked, not_asked):
    lines = directives(tmp_path, **options)
    assert set(asked) <= set(lines)
    assert not [line for line in lines if line.startswith(not_asked)]
