"""Recorded outputs of Slurm 22.05, and anything else."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from flow_providers.cluster.hostlist import expand_hosts
from flow_providers.cluster.slurm import parse
from flow_providers.interfaces.job_state import JobState

SQUEUE = """\
1|CANCELLED|15|1795258571|1795258571|n1|None|
3|CANCELLED|0|1795258571|1795258571||PartitionNodeLimit|
2|FAILED|768|1795258571|1795258571|n1|NonZeroExitCode|
4|FAILED|9|1795258597|1795258597|n1|JobLaunchFailure|
5|RUNNING|0|1795258597|1826794597|n[1-2]|None|
6|PENDING|0|N/A|N/A||Resources|
7|PENDING|0|N/A|N/A||JobHeldUser|
8|COMPLETING|0|1795258597|1795258599|n1|None|
9|COMPLETED|0|1795258597|1795258599|n1|None|
10|PENDING|0|1795260000|1795270000||(null)|
"""


def test_states_codes_and_signals_of_squeue() -> None:
    rows = parse.parse_squeue(SQUEUE)
    assert {job: (row.state, row.exit_code, row.signal) for job, row in rows.items()} == {
        "1": (JobState.CANCELLED, 143, 15),
        "2": (JobState.FAILED, 3, None),
        "3": (JobState.CANCELLED, 0, None),
        "4": (JobState.FAILED, 137, 9),
        "5": (JobState.RUNNING, None, None),
        "6": (JobState.PENDING, None, None),
        "7": (JobState.HELD, None, None),
        "8": (JobState.RUNNING, None, None),
        "9": (JobState.COMPLETED, 0, None),
        "10": (JobState.PENDING, None, None),
    }


def test_nodes_times_and_reasons_of_squeue() -> None:
    rows = parse.parse_squeue(SQUEUE)
    assert rows["5"].nodes == ("n1", "n2")
    assert (rows["5"].started_at, rows["5"].ends_at) == (1795258597.0, 1826794597.0)
    assert rows["6"].reason == "Resources"
    assert rows["10"].started_at is None


def test_an_expected_start_of_a_waiting_job_is_no_start() -> None:
    assert parse.parse_squeue(SQUEUE)["10"].ends_at is None


def test_the_old_format_has_no_exit_code() -> None:
    row = parse.parse_squeue("2|FAILED|-|1795258571|1795258571|n1|NonZeroExitCode|\n")["2"]
    assert (row.state, row.exit_code) == (JobState.FAILED, None)


def test_an_unheard_of_state_is_unknown_and_quoted() -> None:
    row = parse.parse_squeue("2|LEVITATING|0|N/A|N/A||None|\n")["2"]
    assert row.state is JobState.UNKNOWN
    assert "LEVITATING" in row.message


def test_sacct_tells_codes_and_who_cancelled() -> None:
    rows = parse.parse_sacct(
        "7|COMPLETED|0:0|1|2|n1\n8|FAILED|3:0|1|2|n1\n9|CANCELLED by 0|0:0|1|2|n1\n8.batch|FAILED|3:0|1|2|n1\n"
        "11|TIMEOUT|0:9|1|2|n1\n12|CANCELLED+|0:15|1|2|n1\n13|OUT_OF_ME+|0:125|1|2|n1\n"
    )
    assert {job: (row.state, row.exit_code) for job, row in rows.items()} == {
        "7": (JobState.COMPLETED, 0),
        "8": (JobState.FAILED, 3),
        "9": (JobState.CANCELLED, 0),
        "11": (JobState.TIMEOUT, 137),
        "12": (JobState.CANCELLED, 143),
        "13": (JobState.FAILED, 253),
    }


def test_the_log_of_completions_is_read() -> None:
    assert parse.parse_completions("2|FAILED|3:0\n")["2"].exit_code == 3


@pytest.mark.parametrize(
    ("text", "job"),
    [("17\n", "17"), ("17;cluster\n", "17"), ("sbatch: warning: x\n17\n", "17"), ("", None), ("error 17", None)],
)
def test_the_id_of_a_submission(text, job) -> None:
    assert parse.parse_sbatch(text) == job


def test_only_refusals_of_scancel_count() -> None:
    text = (
        "scancel: error: Kill job error on job id 5: Access/permission denied\n"
        "scancel: error: Kill job error on job id 6: Invalid job id specified\n"
    )
    assert parse.parse_scancel_errors(text) == {"5"}


def test_names_may_hold_anything() -> None:
    assert parse.parse_names("1|fabc.a|b\n2|x\nnonsense\n1_2|y\n") == {"1": "fabc.a|b", "2": "x"}


@given(st.text())
def test_no_parser_ever_fails(text) -> None:
    for read in (parse.parse_squeue, parse.parse_sacct, parse.parse_completions, parse.parse_names, parse.parse_sbatch):
        read(text)
    parse.parse_scancel_errors(text)
    expand_hosts(text)


JOB_LINE = st.builds(
    lambda job, state, cut, code, reason: (
        str(job),
        state,
        f"{job}|{state[:cut] + '+' if cut < len(state) else state}|{code}|N/A|N/A|n1|{reason}|",
    ),
    st.integers(1, 10**9),
    st.sampled_from(sorted(parse.STATES)),
    st.integers(8, 20),
    st.integers(0, 65535),
    st.text(st.characters(codec="ascii", exclude_characters="\n\r\x0b\x0c\x1c\x1d\x1e\x85")),
)


@given(st.lists(JOB_LINE, unique_by=lambda line: line[0]), st.lists(st.text(max_size=20)))
def test_every_row_is_read_whatever_stands_between(lines, garbage) -> None:
    noise = [text for text in garbage if "|" not in text]
    rows = parse.parse_squeue("\n".join([*noise, *(line for _, _, line in lines), *noise]))
    assert set(rows) >= {job for job, _, _ in lines}
    for job, state, _ in lines:
        expected = parse.STATES[state]
        assert rows[job].state in {expected, JobState.HELD, JobState.UNKNOWN}


@given(st.lists(st.tuples(st.from_regex(r"[a-z]{1,5}", fullmatch=True), st.integers(0, 50), st.integers(0, 9))))
def test_short_host_lists_are_expanded(parts) -> None:
    text = ",".join(f"{name}[{low:03d}-{low + more:03d}]" for name, low, more in parts)
    wanted = tuple(f"{name}{i:03d}" for name, low, more in parts for i in range(low, low + more + 1))
    assert expand_hosts(text) == wanted


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("n1", ("n1",)),
        ("", ()),
        ("(null)", ()),
        ("None", ()),
        ("a,b[1,3-4]", ("a", "b1", "b3", "b4")),
        ("r[1-2]n[1-2]", ("r1n1", "r1n2", "r2n1", "r2n2")),
        ("n[1-x]", ("n1-x",)),
    ],
)
def test_forms_of_host_lists(text, names) -> None:
    assert expand_hosts(text) == names
