"""Whoever sees the end of a task that was killed finds its outputs settled: as they were before it."""

from __future__ import annotations

import os
import signal
import time
from concurrent.futures import CancelledError
from pathlib import Path

import pytest

import flow
from flow import Config, File, bash_app, python_app
from flow.executors import HighThroughputExecutor, LowLatencyExecutor
from flow_core.errors import TaskKillsWorkers

EXECUTORS = [HighThroughputExecutor, LowLatencyExecutor]


@python_app
def half(begun, outputs=()):
    Path(outputs[0]).write_text("half")
    Path(begun).touch()
    time.sleep(100)


@bash_app
def half_by_bash(begun, outputs=()):
    return f"echo half > {outputs[0]}; touch {begun}; sleep 100"


@python_app
def dies(outputs=()):
    Path(outputs[0]).write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.timeout(180)
@pytest.mark.parametrize("kind", EXECUTORS)
def test_an_output_of_a_task_that_was_killed_is_as_before_when_its_future_is_done(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with flow.load(Config([kind(label="w", max_workers=1)])):
        for number in range(4):
            app = (half, half_by_bash)[number % 2]
            output = Path(f"{number}.txt")
            if number < 2:
                output.write_text("old")
            future = app(str(tmp_path / f"begun{number}"), outputs=[File(str(output))])
            wait_for(tmp_path / f"begun{number}")
            assert future.cancel(kill=True)
            with pytest.raises(CancelledError):
                future.result(60)
            assert (output.read_text() if output.exists() else None) == ("old" if number < 2 else None)
            assert list(tmp_path.glob(f".{number}.txt*")) == []


@pytest.mark.timeout(180)
@pytest.mark.parametrize("kind", EXECUTORS)
def test_an_output_of_a_task_that_ended_its_workers_is_not_there_when_its_future_is_done(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with flow.load(Config([kind(label="w", max_workers=1)], max_worker_kills=2)):
        assert isinstance(dies(outputs=[File("new.txt")]).exception(60), TaskKillsWorkers)
        assert not Path("new.txt").exists()
