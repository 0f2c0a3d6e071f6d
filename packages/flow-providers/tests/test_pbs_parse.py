"""Recorded outputs of OpenPBS 23.06 and of Torque's commands, and anything else."""

from __future__ import annotations

import json
import os

import pytest
from hypothesis import given, strategies as st

from flow_providers.channels.local import LocalChannel
from flow_providers.cluster import pbs_parse as parse
from flow_providers.cluster.pbspro.provider import PBSProProvider
from flow_providers.cluster.torque.provider import TorqueProvider
from flow_providers.interfaces.job_state import JobState

TEXT = """\
Job Id: 17.server
    Job_Name = fabc.x
    Job_Owner = me@login
    job_state = R
    exec_host = n1/0*2+n1/1*2+n2/0*2
    start_time = Sat Nov 21 11:04:25 2026
    Variable_List = PBS_O_HOME=/home/me,PBS_O_LANG=C,
\tPBS_O_PATH=/usr/bin,A = b
Job Id: 18.server
    Job_Name = fdef.x
    job_state = Q
    comment = Not Running: Not enough of the right type of nodes are availab
\tle
Job Id: 19.server
    job_state = C
    exit_status = 3
Job Id: 20.server
    job_state = C
Job Id: 21.server
    job_state = C
    exit_status = 271
UTC+0000
"""

XML = (
    "<Data><Job><Job_Id>17.server</Job_Id><Job_Name>x</Job_Name><job_state>R</job_state></Job>"
    "<Job><Job_Id>19.server</Job_Id><job_state>C</job_state><exit_status>0</exit_status></Job></Data>\nUTC+0000\n"
)


def as_json(**jobs: dict[str, object]) -> str:
    return json.dumps({"timestamp": 1795248597, "pbs_version": "23.06.06", "Jobs": jobs})


def test_states_of_the_text_form() -> None:
    rows = parse.parse_qstat(TEXT)
    assert {job: row.state for job, row in rows.items()} == {
        "17.server": JobState.RUNNING,
        "18.server": JobState.PENDING,
        "19.server": JobState.FAILED,
        "21.server": JobState.FAILED,
    }
    assert rows["17.server"].nodes == ("n1", "n2")
    assert rows["17.server"].started_at == 1795259065
    assert rows["18.server"].reason.endswith("are available")
    assert rows["19.server"].exit_code == 3
    assert rows["21.server"].signal == 15


def test_a_job_of_which_only_the_end_is_told_is_left_out() -> None:
    assert "20.server" not in parse.parse_qstat(TEXT)


def test_states_of_the_xml_form() -> None:
    rows = parse.parse_qstat(XML)
    assert (rows["17.server"].state, rows["19.server"].state) == (JobState.RUNNING, JobState.COMPLETED)


def test_states_of_the_json_form() -> None:
    rows = parse.parse_qstat(
        as_json(
            **{
                "6.s": {"job_state": "R", "exec_host": "s/0*2+s/1*2", "stime": 1795248597},
                "7.s": {"job_state": "F", "Exit_status": 3},
                "8.s": {"job_state": "F", "Exit_status": -29},
                "9.s": {"job_state": "H", "comment": "held by user"},
                "10.s": {"job_state": "F", "Exit_status": 0},
                "11.s": {"job_state": "F", "Exit_status": -1},
                "8[].s": {"job_state": "B"},
            }
        )
    )
    assert {job: (row.state, row.exit_code) for job, row in rows.items()} == {
        "6.s": (JobState.RUNNING, None),
        "7.s": (JobState.FAILED, 3),
        "8.s": (JobState.TIMEOUT, None),
        "9.s": (JobState.HELD, None),
        "10.s": (JobState.COMPLETED, 0),
        "11.s": (JobState.FAILED, None),
        "8[].s": (JobState.RUNNING, None),
    }


def test_names_of_all_forms() -> None:
    assert parse.parse_names(TEXT)["17.server"] == "fabc.x"
    assert parse.parse_names(XML)["17.server"] == "x"
    assert parse.parse_names(as_json(**{"1": {"Job_Name": "y"}})) == {"1": "y"}


@pytest.mark.parametrize(
    ("text", "job"),
    [("2\n", "2"), ("6.itest2\n", "6.itest2"), ("8[].itest2\n", "8[].itest2"), ("hello\n17.a-b.c\n", "17.a-b.c")]
    + [("", None), ("There was an error\n", None)],
)
def test_the_id_of_a_submission(text, job) -> None:
    assert parse.parse_qsub(text) == job


def test_the_log_of_the_server_tells_how_a_job_ended() -> None:
    ended = "11/21/2026 11:05:00  S    Exit_status=3 resources_used.cput=00:00:00"
    deleted = "11/21/2026 11:04:59  S    Job deleted at request of me@login"
    status = parse.parse_tracejob(ended)
    assert status is not None
    assert (status.state, status.exit_code) == (JobState.FAILED, 3)
    for log in (deleted, f"{deleted}\n{ended}"):
        cancelled = parse.parse_tracejob(log)
        assert cancelled is not None
        assert cancelled.state is JobState.CANCELLED
    assert parse.parse_tracejob("11/21/2026 11:04:25  S    enqueuing into batch, state 1 hop 1") is None


@pytest.mark.parametrize("kind", [TorqueProvider, PBSProProvider])
def test_jobs_that_left_the_queue_are_looked_up_in_the_log_of_the_server(kind, tmp_path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, code in {
        "qstat": 'echo "qstat: Unknown Job Id $3" >&2; exit 153',
        "tracejob": 'for id; do :; done; [ "$id" = 18.s ] || echo "11/21/2026  S  Exit_status=${id%%.*}"',
    }.items():
        (programs / name).write_text(f"#!/bin/sh\n{code}\n")
        (programs / name).chmod(0o755)
    provider = kind(channel=LocalChannel(envs={"PATH": f"{programs}:{os.environ['PATH']}"}, script_dir=str(tmp_path)))
    states = [(status.state, status.exit_code) for status in provider.status(["17.s", "18.s", "0.s"])]
    assert states == [(JobState.FAILED, 17), (JobState.MISSING, None), (JobState.COMPLETED, 0)]


@given(
    st.one_of(
        st.text(), st.text().map(lambda t: "<" + t), st.text().map(lambda t: "{" + t), st.text().map(lambda t: TEXT + t)
    )
)
def test_no_parser_ever_fails(text) -> None:
    parse.parse_qstat(text)
    parse.parse_names(text)
    parse.parse_qsub(text)
    parse.parse_tracejob(text)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["Jobs", "job_state", "x"]), inner),
    max_leaves=8,
)


@given(JSON)
def test_json_of_any_shape_is_survived(answer) -> None:
    parse.parse_qstat(json.dumps({"Jobs": answer}))
    parse.parse_qstat(json.dumps(answer))


@given(
    st.dictionaries(
        st.from_regex(r"\d{1,6}\.[a-z]{1,8}", fullmatch=True),
        st.tuples(
            st.sampled_from("BEHMQRSTUW"), st.text(st.characters(codec="ascii", categories=["L", "N"]), max_size=200)
        ),
    )
)
def test_every_job_is_read_however_long_its_lines_are_folded(jobs) -> None:
    def fold(text: str) -> str:
        return "\n\t".join(text[i : i + 40] for i in range(0, len(text), 40))

    text = "".join(
        f"Job Id: {job}\n    job_state = {s}\n    comment = x{fold(long)}\n" for job, (s, long) in jobs.items()
    )
    rows = parse.parse_qstat(text)
    assert set(rows) == set(jobs)
    for job, (_, long) in jobs.items():
        assert rows[job].state is not JobState.UNKNOWN
        assert rows[job].reason in {"", "x" + long}
