"""Cancelling, before and after a start."""

from __future__ import annotations

import concurrent.futures
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from kernel_apps import Load, add, hold

import flow_core as flow
from flow_core.errors import DependencyError
from flow_core.interfaces.outcome import Outcome, Verdict
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


def test_the_result_of_a_cancelled_task_says_which_task_was_cancelled(load: Load) -> None:
    load(MemoryExecutor("memory"))
    future = add(1)
    assert future.cancel()
    for ask in (future.result, future.exception):
        with pytest.raises(concurrent.futures.CancelledError, match="task 0 was cancelled"):
            ask(10)


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
    assert not future.cancel()
    assert future.cancel(kill=True)
    with pytest.raises(concurrent.futures.CancelledError):
        future.result(10)
    assert add(1).result(10) == 2


@flow.bash_app
def sleep_in_bash(pid_file: str) -> str:
    return f"echo $$ > {pid_file}.new; mv {pid_file}.new {pid_file}; sleep 100 & wait"


def test_killing_a_running_bash_app_of_a_thread_ends_its_process_group(load: Load, tmp_path: Path) -> None:
    load()
    pid_file = tmp_path / "pid"
    future = sleep_in_bash(str(pid_file))
    assert _within(20, pid_file.exists)
    group = int(pid_file.read_text())
    assert future.cancel(kill=True)
    with pytest.raises(concurrent.futures.CancelledError):
        future.result(20)
    assert _within(10, lambda: not _has_members(group))


def _within(seconds: float, done: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + seconds
    while not done() and time.monotonic() < deadline:
        time.sleep(0.01)
    return done()


def _has_members(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_what_a_task_comes_to_after_it_was_promised_to_be_cancelled_is_dropped(load: Load) -> None:
    executor = MemoryExecutor("memory")
    kernel = load(executor, retries=3)
    well, badly, lost = add(1), add(2), add(3)
    keys = list(executor.waiting)
    ends = [
        Outcome(keys[0], Verdict.OK, 2),
        Outcome(keys[1], Verdict.APP_ERROR, error=ValueError("on its way out")),
        Outcome(keys[2], Verdict.LOST),
    ]
    for key in keys:
        executor.begin(key)
    executor.cancel = lambda keys, /, *, kill=False: None  # type: ignore[method-assign]  # it comes too late
    for future, outcome in zip((well, badly, lost), ends, strict=True):
        assert future.cancel(kill=True)
        kernel._reactor.finished([outcome])
        assert future.cancelled()


def test_where_the_executor_cannot_end_a_task_killing_is_refused(load: Load) -> None:
    release, started = threading.Event(), threading.Event()
    pool = concurrent.futures.ThreadPoolExecutor(1)
    load(pool)

    @flow.python_app
    def hold_on() -> int:
        started.set()
        release.wait(20)
        return 5

    future = hold_on()
    assert started.wait(10)
    flow.dfk()._reactor.started([(flow.dfk()._core.live[0].key, 1, None)])  # such pools do not report starts
    assert not future.cancel(kill=True)
    release.set()
    assert future.result(10) == 5
    pool.shutdown()


def test_killing_a_join_app_that_waits_ends_its_wait_at_once(load: Load) -> None:
    executor = MemoryExecutor("memory")
    load(executor)

    @flow.join_app
    def wait_for_another() -> object:
        return add(1)

    future = wait_for_another()
    (key,) = executor.wait_submitted(1)
    assert _within(10, lambda: future.task_status() == "joining")
    assert not future.cancel()
    assert future.cancel(kill=True)
    assert future.cancelled()
    executor.run(key)


def test_cancelling_a_data_future_cancels_its_task(load: Load, tmp_path: Path) -> None:
    load(MemoryExecutor("memory"))

    @flow.python_app
    def make(outputs: list[flow.File]) -> None:
        return None

    future = make(outputs=[flow.File(str(tmp_path / "out"))])
    assert future.outputs[0].cancel()
    assert future.cancelled()
    assert future.outputs[0].cancelled()
