"""Cancelling, before and after a start."""

from __future__ import annotations

import concurrent.futures
import threading
from pathlib import Path

import pytest
from kernel_apps import Load, add, hold

import flow_core as flow
from flow_core.errors import DependencyError
from flow_core.testing import MemoryExecutor


def test_a_waiting_task_is_cancelled_and_its_dependents_say_so(load: Load) -> None:
    executor = MemoryExecutor("memory")
    load(executor)
    parent = add(1)
    child = add(parent)
    assert parent.cancel()
    assert parent.cancelled()
    assert parent.task_status() == "cancelled"
    error = child.exception(10)
    assert isinstance(error, DependencyError)
    assert isinstance(error.__cause__, concurrent.futures.CancelledError)
    assert executor.run_all() == 0


def test_a_task_reported_as_started_is_not_cancelled(load: Load) -> None:
    executor = MemoryExecutor("memory")
    load(executor)
    future = add(1)
    key = hold(executor)
    executor.begin(key)
    assert future.running()
    assert future.task_status() == "running"
    assert not future.cancel()
    executor.finish(key, 2)
    assert future.result(10) == 2
    assert not future.cancel()


def test_killing_ends_a_running_task_of_a_thread(load: Load) -> None:
    load()
    started = threading.Event()

    @flow.python_app
    def spin(started: threading.Event) -> None:
        started.set()
        while True:
            threading.Event().wait(0.001)

    future = spin(started)
    assert started.wait(10)
    assert not future.cancel(kill=True)
    with pytest.raises(concurrent.futures.CancelledError):
        future.result(10)
    assert add(1).result(10) == 2


def test_cancelling_a_data_future_cancels_its_task(load: Load, tmp_path: Path) -> None:
    load(MemoryExecutor("memory"))

    @flow.python_app
    def make(outputs: list[flow.File]) -> None:
        return None

    future = make(outputs=[flow.File(str(tmp_path / "out"))])
    assert future.outputs[0].cancel()
    assert future.cancelled()
    assert future.outputs[0].cancelled()
