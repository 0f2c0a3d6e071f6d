"""Recorded outputs of Grid Engine 8.1.9, and anything else."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from flow_providers.cluster.gridengine import parse
from flow_providers.interfaces.job_state import JobState

QSTAT_XML = """\
<?xml version='1.0'?>
<job_info  xmlns:xsd="http://arc.liv.ac.uk/repos/darcs/sge/source/dist/util/resources/schemas/qstat/qstat.xsd">
  <queue_info>
    <job_list state="running">
      <JB_job_number>1</JB_job_number>
      <JAT_prio>0.25000</JAT_prio>
      <JB_name>fabc.flow.auto</JB_name>
      <JB_owner>root</JB_owner>
      <state>r</state>
      <JAT_start_time>2026-11-21T11:04:25</JAT_start_time>
      <queue_name>all.q@vm</queue_name>
      <slots>1</slots>
    </job_list>
  </queue_info>
  <job_info>
    <job_list state="pending"><JB_job_number>3</JB_job_number><JB_name>x</JB_name><state>qw</state></job_list>
    <job_list state="pending"><JB_job_number>4</JB_job_number><JB_name>y</JB_name><state>Eqw</state></job_list>
    <job_list state="pending"><JB_job_number>2</JB_job_number><JB_name>z</JB_name><state>hqw</state></job_list>
  </job_info>
</job_info>
UTC+0130
"""

QSTAT_TEXT = """\
job-ID  prior   name       user         state submit/start at     queue                          slots ja-task-ID
-----------------------------------------------------------------------------------------------------------------
      1 0.25510 gjob       root         r     11/21/2026 07:46:23 all.q@vm                           2
      6 0.75000 big        root         qw    11/21/2026 07:46:23                                   99
     17 0.50000 true       root         Eqw   11/21/2026 07:47:32                                    1
"""


def qacct(job: int, failed: str, status: str, extra: str = "") -> str:
    head = f"{'=' * 62}\nqname        all.q\nhostname     vm\n"
    return f"{head}jobnumber    {job}\nfailed       {failed}\nexit_status  {status}\n{extra}"


def test_states_of_the_xml() -> None:
    rows = parse.parse_qstat(QSTAT_XML)
    assert {job: row.state for job, row in rows.items()} == {
        "1": JobState.RUNNING,
        "2": JobState.HELD,
        "3": JobState.PENDING,
        "4": JobState.HELD,
    }
    assert rows["1"].nodes == ("vm",)
    assert "qstat -j" in rows["4"].message


def test_local_times_are_understood_by_the_offset() -> None:
    assert parse.parse_qstat(QSTAT_XML)["1"].started_at == 1795259065 - 5400


def test_without_an_offset_there_is_no_time() -> None:
    assert parse.parse_qstat(QSTAT_XML.replace("UTC+0130", ""))["1"].started_at is None


def test_the_table_is_read_where_there_is_no_xml() -> None:
    rows = parse.parse_qstat(QSTAT_TEXT)
    assert [row.state for row in rows.values()] == [JobState.RUNNING, JobState.PENDING, JobState.HELD]


def test_names_by_id() -> None:
    assert parse.parse_names(QSTAT_XML)["1"] == "fabc.flow.auto"


@pytest.mark.parametrize(
    ("letters", "state"),
    [
        ("r", JobState.RUNNING),
        ("t", JobState.RUNNING),
        ("dr", JobState.RUNNING),
        ("Rr", JobState.RUNNING),
        ("S", JobState.RUNNING),
        ("qw", JobState.PENDING),
        ("Rq", JobState.PENDING),
        ("hqw", JobState.HELD),
        ("Eqw", JobState.HELD),
        ("", JobState.UNKNOWN),
        ("?!", JobState.UNKNOWN),
    ],
)
def test_letters(letters, state) -> None:
    assert parse.state_of(letters) is state


def test_how_jobs_ended_by_the_accounting() -> None:
    text = (
        qacct(1, "0    ", "0                   ")
        + qacct(2, "0", "3")
        + qacct(3, "100 : assumedly after job", "137                  (Killed)")
        + qacct(4, "37  : qmaster enforced h_rt, h_cpu, or h_vmem limit", "137")
        + qacct(5, "100 : assumedly after job", "137", "deleted_by   root\n")
        + qacct(6, "26  : opening input/output file", "0")
    )
    assert {job: (row.state, row.exit_code, row.signal) for job, row in parse.parse_qacct(text).items()} == {
        "1": (JobState.COMPLETED, 0, None),
        "2": (JobState.FAILED, 3, None),
        "3": (JobState.FAILED, 137, 9),
        "4": (JobState.TIMEOUT, 137, 9),
        "5": (JobState.CANCELLED, 137, 9),
        "6": (JobState.FAILED, 0, None),
    }


def test_of_a_reused_id_the_last_record_counts() -> None:
    assert parse.parse_qacct(qacct(1, "0", "3") + qacct(1, "0", "0"))["1"].state is JobState.COMPLETED


@pytest.mark.parametrize(
    ("text", "job"), [("2\n", "2"), ("4.1-4:1\n", "4"), ("warning: no 5\n6\n", "6"), ("", None), ("denied 7", None)]
)
def test_the_id_of_a_submission(text, job) -> None:
    assert parse.parse_qsub(text) == job


def test_only_refusals_of_qdel_count() -> None:
    text = 'root has deleted job 2\ndenied: job "1" does not exist\ndenied: me is not allowed to delete job "5"\n'
    assert parse.parse_qdel_refusals(text) == {"5"}


@given(st.one_of(st.text(), st.text().map(lambda text: f"<?xml {text}>"), st.text().map(lambda t: QSTAT_XML + t)))
def test_no_parser_ever_fails(text) -> None:
    for read in (parse.parse_qstat, parse.parse_names, parse.parse_qacct, parse.parse_qsub, parse.parse_qdel_refusals):
        read(text)


@given(st.integers(0, len(QSTAT_XML)))
def test_a_cut_answer_gives_some_rows_or_none_and_never_a_wrong_one(cut) -> None:
    whole = parse.parse_qstat(QSTAT_XML)
    for job, row in parse.parse_qstat(QSTAT_XML[:cut]).items():
        assert row.state is whole[job].state
