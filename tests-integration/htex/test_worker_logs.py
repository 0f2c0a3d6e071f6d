"""What tasks print goes to their worker's log, which has a cap."""

from __future__ import annotations

import flow_core as flow
from flow_core import bash_app, python_app
from flow_core.errors import BashExitFailure
from flow_executors.testing.local_run import wait_until

MOST = 1 << 20


@python_app
def write_much(count):
    for number in range(count):
        print(f"number {number}")
    return count


@bash_app
def write_more(count):
    return f"seq 1 {count}; echo that is all"


def test_the_log_of_a_worker_has_a_cap_and_keeps_its_end(config, tmp_path):
    with flow.load(config(max_worker_log_bytes=MOST)):
        assert write_much(200_000).result(timeout=40) == 200_000
        write_more(1_000_000).result(timeout=40)
        (log,) = (tmp_path / "runinfo").glob("*/htex/block-*/*/worker_0.log")
        wait_until(lambda: log.stat().st_size <= MOST and log.read_text().endswith("\nthat is all\n"), "not cut", 10)
        text = log.read_text()
    assert text.startswith("number 0\n")
    assert "bytes were cut here (max_worker_log_bytes=1048576)" in text


@bash_app
def fail_and_write_much():
    return "echo THE REAL ERROR >&2; seq 1 400; exit 3"


def test_the_error_of_a_bash_app_shows_its_standard_error_alone(config):
    with flow.load(config()):
        error = fail_and_write_much().exception(timeout=40)
    assert isinstance(error, BashExitFailure)
    assert (error.exitcode, error.stderr_tail) == (3, "THE REAL ERROR")
