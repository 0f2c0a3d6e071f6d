"""What the log of a run tells, and what it does not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from kernel_apps import divide

import flow_core as flow
from flow_core.interfaces.outcome import LossKind
from flow_core.testing import MemoryExecutor


def run_log(tmp_path: Path, **options: Any) -> str:
    with flow.load(flow.Config(run_dir=tmp_path / "runinfo", name="s.py", **options)) as kernel:
        assert [divide(x, 1).result(10) for x in range(1000)] == list(range(1000))
        assert divide(divide(1, 0), 1).exception(10) is not None
    return (kernel.run_dir / "flow.log").read_text()


def test_it_tells_the_start_retries_failures_and_a_summary_and_no_line_a_task(tmp_path: Path) -> None:
    lines = run_log(tmp_path, retries=2).splitlines()
    told = [line.partition("[INFO] ")[2] for line in lines]
    assert len(lines) == 5
    assert "of s.py began in" in told[0]
    assert "executors: threads" in told[0]
    assert told[1] == "task 1000 (divide) is tried again (try 1 failed): ZeroDivisionError: division by zero"
    assert told[2] == "task 1000 (divide) is tried again (try 2 failed): ZeroDivisionError: division by zero"
    assert told[3] == "task 1000 (divide) failed: ZeroDivisionError: division by zero"
    assert "1002 tasks: 1000 completed, 0 from memory, 1 failed, 1 not run for a failed dependency" in told[4]


def test_it_may_be_one_object_a_line(tmp_path: Path) -> None:
    lines = [json.loads(line) for line in run_log(tmp_path, log_format="json").splitlines()]
    assert [line["level"] for line in lines] == ["INFO"] * 3
    assert "task 1000 (divide) failed" in lines[1]["message"]


def test_its_level_and_format_are_the_users(tmp_path: Path) -> None:
    lines = run_log(tmp_path, log_level="DEBUG", log_format="<%(levelname)s> %(message)s").splitlines()
    assert "<DEBUG> task 3 (divide) ended as exec_done" in [line.partition(" in ")[0] for line in lines]
    quiet = run_log(tmp_path, log_level=40)
    assert "[INFO]" not in quiet


def test_it_may_be_left_out(tmp_path: Path) -> None:
    with flow.load(flow.Config(run_dir=tmp_path, initialize_logging=False)) as kernel:
        divide(1, 1).result(10)
    assert not (kernel.run_dir / "flow.log").exists()


def test_a_lost_try_is_told_of_with_where_and_how(tmp_path: Path) -> None:
    executor = MemoryExecutor()
    with flow.load(flow.Config(executors=[executor], run_dir=tmp_path)) as kernel:
        future = divide(1, 1)
        (key,) = executor.wait_submitted(1)
        executor.begin(key)
        executor.lose(key, LossKind.MANAGER, "no heartbeat for 120 s")
        executor.finish(executor.wait_submitted(2)[-1], 1.0)
        assert future.result(10) == 1.0
    log = (kernel.run_dir / "flow.log").read_text()
    assert "task 0 (divide) is tried again (try 1 failed): the manager of its node was lost" in log
    assert "no heartbeat for 120 s" in log


def test_what_apps_print_is_not_in_it(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    @flow.python_app
    def say() -> None:
        print("a word of the app")

    with flow.load(flow.Config(run_dir=tmp_path)) as kernel:
        say().result(10)
    assert "a word of the app" in capfd.readouterr().out
    assert "a word of the app" not in (kernel.run_dir / "flow.log").read_text()
