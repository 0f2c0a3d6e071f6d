"""What ``future.cancel()`` says is true, from a task's first moment on: True only for what leaves no trace."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor as Pool, ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import flow
from flow import Config, python_app
from flow.executors import FuturesExecutor, HighThroughputExecutor, LowLatencyExecutor, ThreadPoolExecutor

PATIENCE_S = 30

EXECUTORS: dict[str, Callable[[], Any]] = {
    "threads": partial(ThreadPoolExecutor, max_threads=1),
    "htex": partial(HighThroughputExecutor, max_workers=1),
    "llex": partial(LowLatencyExecutor, max_workers=1),
    "pool": lambda: FuturesExecutor("pool", _pool),
}


def _pool() -> Pool:
    return ProcessPoolExecutor(1)


@python_app
def held(mark: str, gate: str) -> str:
    import os
    import time

    open(mark, "w").close()
    while not os.path.exists(gate):
        time.sleep(0.005)
    return "done"


@python_app
def marks(mark: str) -> None:
    open(mark, "w").close()


@pytest.mark.parametrize("executor", EXECUTORS)
@pytest.mark.timeout(90)
def test_a_task_that_was_said_to_be_cancelled_never_runs_and_one_that_runs_is_not(
    tmp_path: Path, executor: str
) -> None:
    with flow.load(Config(executors=[EXECUTORS[executor]()], run_dir=str(tmp_path / "runinfo"))):
        marks(str(tmp_path / "warm")).result(PATIENCE_S)
        first = held(str(tmp_path / "begun"), str(tmp_path / "gate"))
        later = [marks(str(tmp_path / f"later-{number}")) for number in range(6)]
        deadline = time.monotonic() + PATIENCE_S
        while not (tmp_path / "begun").exists():
            assert time.monotonic() < deadline, "the first task did not begin"
            threading.Event().wait(0.002)
        assert first.cancel() is False
        answers = [future.cancel() for future in later]
        assert [future.cancelled() for future in later] == answers
        assert not first.done()
        (tmp_path / "gate").touch()
        assert first.result(PATIENCE_S) == "done"
        for future, answer in zip(later, answers, strict=True):
            if not answer:
                future.result(PATIENCE_S)
        assert marks(str(tmp_path / "last")).result(PATIENCE_S) is None  # whatever was before it has run by now
    there = [(tmp_path / f"later-{number}").exists() for number in range(6)]
    assert there == [not answer for answer in answers]
    assert any(answers)
