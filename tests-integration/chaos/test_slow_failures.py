"""Failures that take their time: a block's walltime, a directory that is gone."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest

import flow_core as flow
from flow_core import Config, python_app
from flow_core.errors import TaskExceedsBlock
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


def test_a_run_directory_that_is_deleted_does_not_end_the_run(tmp_path: Path) -> None:
    kernel = flow.load(config(tmp_path))
    try:
        assert double(1).result(timeout=40) == 2
        shutil.rmtree(tmp_path / "runinfo")
        assert [double(n).result(timeout=40) for n in range(20)] == [2 * n for n in range(20)]
    finally:
        began = time.monotonic()
        kernel.cleanup()
        flow.clear()
    assert time.monotonic() - began < 45
