"""Outputs in the shape of Cobalt 1.0, and anything else."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from flow_providers.cluster.cobalt import parse
from flow_providers.interfaces.job_state import JobState

LONG = """JobID: 1010
    JobName           : fabc.flow
    User              : someone
    WallTime          : 00:10:00
    Nodes             : 2
    State             : running
    Location          : [3-4]
    StartTime         : Sat Nov 21 12:00:00 2026
    Command           : /home/someone/x.sh
    Args              : State : done

JobID: 1011
    JobName           : -
    State             : dep_hold
    Location          : None
"""
TABLE = """Notice: maintenance on Tuesday
JobID  User                          WallTime  Nodes  State      Location
==========================================================================
12     a_user_with_a_very_long_name  00:10:00  2      queued     None
13     me                            00:10:00  2      user_hold  None
14     me                            00:10:00  2      running    n1,n2
15     me                            00:10:00  2      killing    n1
"""


def test_the_long_form_tells_names_states_and_places() -> None:
    rows = parse.parse_qstat(LONG)
    assert {job: row.state for job, row in rows.items()} == {"1010": JobState.RUNNING, "1011": JobState.HELD}
    assert rows["1010"].nodes == ("3-4",)
    assert rows["1011"].reason == "dep_hold"
    assert parse.parse_names(LONG) == {"1010": "fabc.flow", "1011": "-"}


def test_columns_are_found_by_their_names() -> None:
    rows = parse.parse_qstat(TABLE)
    assert {job: row.state for job, row in rows.items()} == {
        "12": JobState.PENDING,
        "13": JobState.HELD,
        "14": JobState.RUNNING,
        "15": JobState.RUNNING,
    }
    assert rows["14"].nodes == ("n1", "n2")


@pytest.mark.parametrize(
    ("word", "state"),
    [
        ("starting (booting nodes)", JobState.RUNNING),
        ("maxrun_hold", JobState.PENDING),
        ("some_new_hold", JobState.HELD),
        ("dep_fail", JobState.HELD),
        ("preempted", JobState.PENDING),
        ("meditating", JobState.UNKNOWN),
    ],
)
def test_long_and_seldom_states(word, state) -> None:
    assert parse.parse_qstat(f"JobID: 1\n    State             : {word}\n")["1"].state is state


def test_a_job_of_which_only_its_end_is_said_is_left_out() -> None:
    assert parse.parse_qstat("JobID: 1\n    State             : done\n") == {}
    assert parse.parse_qstat("JobID: 1\n    User  ") == {}


def test_the_id_of_a_submission_comes_after_any_notices() -> None:
    assert parse.parse_qsub("Auto set option 'attrs' to 'filesystems=home'\n\n 1234\n") == "1234"
    assert parse.parse_qsub("no id 12 here") is None


@pytest.mark.parametrize(
    ("line", "state", "code"),
    [
        ("Info: task completed normally with an exit code of 0; initiating job cleanup", JobState.COMPLETED, 0),
        ("Info: task completed normally with an exit code of 3; initiating job cleanup", JobState.FAILED, 3),
        ("Info: maximum execution time exceeded; initiating job termination", JobState.TIMEOUT, None),
        ("Info: user delete requested", JobState.CANCELLED, None),
        ("Info: task completed with exit status: 3", JobState.FAILED, 3),
        ("script exit code = 0", JobState.COMPLETED, 0),
        ("task ended, return code 17", JobState.FAILED, 17),
        ("task completed with an exit code of -9", JobState.FAILED, 137),
        ("exit code -9", JobState.FAILED, 137),
        ("task was terminated by signal 15", JobState.FAILED, 143),
        ("the walltime limit has been reached; killing the job", JobState.TIMEOUT, None),
        ("Info: job exceeded its walltime", JobState.TIMEOUT, None),
        ("Info: administrator someone requested deletion of the job", JobState.CANCELLED, None),
    ],
)
def test_the_end_is_told_by_the_log(line, state, code) -> None:
    found = parse.parse_log(f"Mon Mar 05 20:31:14 2018 +0000 (UTC) submitted\nMon Mar 05 20:31:14 2018 {line}\n")
    assert found is not None
    assert (found.state, found.exit_code) == (state, code)


def test_a_time_limit_is_told_before_the_signal_that_it_sent() -> None:
    log = "maximum execution time exceeded; initiating job termination\ntask completed with an exit code of 143;\n"
    found = parse.parse_log(log)
    assert found is not None
    assert (found.state, found.exit_code) == (JobState.TIMEOUT, 143)


def test_what_the_environment_holds_is_no_word_of_the_scheduler() -> None:
    log = (
        "Environment:\nHELP=exit code 7 when the walltime exceeded\nPS1=user kills\nsubmitted with cwd set to: /home\n"
    )
    assert parse.parse_log(log) is None


def test_a_log_that_says_nothing_of_the_end_is_no_end() -> None:
    assert parse.parse_log("submitted with cwd set to: /home\n") is None


def test_only_refusals_of_qdel_count() -> None:
    text = "      Deleted Jobs\nJobID  User\n====\n1  me\nNo jobs found matching: 2\njob 3 is not owned by you\n"
    assert parse.parse_qdel_refusals(text) == {"3"}


@given(st.one_of(st.text(), st.text().map(lambda text: "JobID: 1\n" + text), st.text().map(lambda t: "JobID  S\n" + t)))
def test_no_parser_ever_fails(text) -> None:
    for read in (parse.parse_qstat, parse.parse_names, parse.parse_qsub, parse.parse_qdel_refusals, parse.parse_log):
        read(text)


WORDS = st.sampled_from(["queued", "running", "user_hold", "exiting", "maxrun_hold"])


@given(st.dictionaries(st.integers(1, 10**9).map(str), WORDS), st.integers(0, 2000))
def test_both_forms_give_the_same_rows_and_a_truncated_one_gives_no_others(jobs, cut) -> None:
    long = "".join(f"JobID: {job}\n    State             : {word}\n\n" for job, word in jobs.items())
    width = max((len(word) for word in jobs.values()), default=1)
    table = f"{'JobID':<10}  {'State':<{width}}  Location\n{'=' * 40}\n"
    table += "".join(f"{job:<10}  {word:<{width}}  None\n" for job, word in jobs.items())
    states = {job: row.state for job, row in parse.parse_qstat(long).items()}
    assert states == {job: row.state for job, row in parse.parse_qstat(table).items()}
    assert set(states) == set(jobs)
    assert set(parse.parse_qstat(long[:cut])) <= set(jobs)
