"""Failures that take their time: a block's walltime, a directory that is gone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import flow_core as flow
from flow_core import Config, python_app
from flow_core.errors import TaskExceedsBlock, TaskKillsWorkers
from flow_executors import HighThroughputExecutor
from flow_providers import LocalProvider

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(180)]


def config(tmp_path: Path, **provider: object) -> Config:
    executor = HighThroughputExecutor(
        label="htex",
        max_workers=1,
        heartbeat_period=0.2,
        heartbeat_threshold=4,
        provider=LocalProvider(**({"max_blocks": 1} | provider)),  # type: ignore[arg-type]  # checked by the provider
    )
    return Config(executors=[executor], run_dir=str(tmp_path / "runinfo"), strategy_period=0.2)


@python_app
def double(x):
    return 2 * x


@python_app
def sleep(seconds):
    import time

    time.sleep(seconds)
    return seconds


def test_a_task_that_exceeds_its_block_twice_is_stopped_and_told_so(tmp_path: Path) -> None:
    with flow.load(config(tmp_path, walltime="00:00:12", enforce_walltime=True, min_blocks=1)):
        error = sleep(600).exception(timeout=150)
        assert isinstance(error, TaskExceedsBlock)
        assert "walltime" in str(error)


@python_app
def stop_for_ever():
    import os
    import signal

    while True:
        os.kill(os.getpid(), signal.SIGSTOP)


def test_a_task_that_stops_itself_for_ever_is_given_up_and_told_so(tmp_path: Path) -> None:
    with flow.load(config(tmp_path)):
        error = stop_for_ever().exception(timeout=100)
        assert isinstance(error, TaskKillsWorkers)
        assert "stopped (state T)" in str(error)
        assert double(1).result(timeout=40) == 2


_DELETED = """
import shutil, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
import flow_core as flow
from test_slow_failures import config, double
where = Path(sys.argv[1])
kernel = flow.load(config(where))
assert double(1).result(timeout=40) == 2
shutil.rmtree(where / "runinfo")
assert [double(n).result(timeout=40) for n in range(20)] == [2 * n for n in range(20)]
print("all right", flush=True)
kernel.cleanup()
"""


def test_a_run_directory_that_is_deleted_does_not_end_the_run_and_keeps_its_end_bounded(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _DELETED, str(tmp_path), str(Path(__file__).parent)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert "all right" in done.stdout, done.stderr
    assert done.returncode == 0, done.stderr
