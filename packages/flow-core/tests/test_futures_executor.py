from __future__ import annotations

import concurrent.futures
import multiprocessing
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from flow_core.errors import ConfigurationError, ExecutorBroken
from flow_core.executors.futures import FuturesExecutor, SubmitExecutor
from flow_core.interfaces.call import Call, TryKey
from flow_core.interfaces.outcome import Verdict
from flow_core.testing import ExecutorContract, RecordingListener, calls, make_context


def make_threads() -> concurrent.futures.Executor:
    return concurrent.futures.ThreadPoolExecutor(2)


def make_processes() -> concurrent.futures.Executor:
    return concurrent.futures.ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("forkserver"))


class TestOverThreads(ExecutorContract):
    def make_executor(self) -> FuturesExecutor:
        return FuturesExecutor("pool", make_threads)


class TestOverProcesses(ExecutorContract):
    isolates_tasks = True
    survives_exit = False

    def make_executor(self) -> FuturesExecutor:
        return FuturesExecutor("processes", make_processes)


class SeedsStyle:
    """An executor as users of the field write them."""

    honours = frozenset[str]()  # it is told, and does nothing about it

    def __init__(self) -> None:
        self.label = "seeds"
        self.asked: list[dict[str, object]] = []
        self.max_workers = 2
        self._pool: concurrent.futures.Executor | None = None

    def start(self) -> None:
        self._pool = make_threads()

    def submit(
        self, func: Callable[..., Any], resource_specification: dict[str, object], *args: Any, **kwargs: Any
    ) -> Future[Any]:
        assert self._pool is not None
        self.asked.append(resource_specification)
        return self._pool.submit(func, *args, **kwargs)

    def shutdown(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=False)


class TestSeedsStyle(ExecutorContract):
    isolates_tasks = False

    def make_executor(self) -> SubmitExecutor:
        return SubmitExecutor(SeedsStyle())


@pytest.fixture
def listener() -> Iterator[RecordingListener]:
    listener = RecordingListener()
    yield listener
    assert listener.breaches == []


def test_a_resource_specification_is_handed_on(tmp_path: Path, listener: RecordingListener) -> None:
    seeds = SeedsStyle()
    executor = SubmitExecutor(seeds)
    executor.start(make_context(tmp_path, listener, label="seeds"))
    executor.submit(TryKey(1), Call(calls.double, (2,)))
    assert listener.wait_for([TryKey(1)], 10)[0].value == 4
    assert seeds.asked[0]["cores"] == 1.0
    executor.shutdown(5)


def test_a_shutdown_of_the_users_that_hangs_is_left_and_told(tmp_path: Path, listener: RecordingListener) -> None:
    seeds, gate = SeedsStyle(), threading.Event()
    seeds.shutdown = gate.wait  # type: ignore[method-assign, assignment]  # one that hangs
    executor = SubmitExecutor(seeds)
    executor.start(make_context(tmp_path, listener, label="seeds"))
    assert "did not come back within 0.05 s" in executor.shutdown(0.05).forced[0]
    gate.set()


def test_a_users_own_pool_is_not_shut_down(tmp_path: Path, listener: RecordingListener) -> None:
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        executor = FuturesExecutor("mine", pool)
        for _ in range(2):
            executor.start(make_context(tmp_path, listener, label="mine"))
            executor.shutdown(5)
        assert pool.submit(calls.double, 4).result(10) == 8


def test_a_function_of_main_and_a_closure_travel_to_processes(tmp_path: Path, listener: RecordingListener) -> None:
    executor = FuturesExecutor("processes", make_processes)
    executor.start(make_context(tmp_path, listener, label="processes"))
    factor = 3
    executor.submit(TryKey(1), Call(lambda x: x * factor, (5,)))
    assert listener.wait_for([TryKey(1)], 30)[0].value == 15
    executor.shutdown(5)


def test_a_users_broken_pool_is_named_and_says_what_to_do(tmp_path: Path, listener: RecordingListener) -> None:
    pool = make_processes()
    executor = FuturesExecutor("frail", pool)
    executor.start(make_context(tmp_path, listener, label="frail"))
    executor.submit(TryKey(1), Call(calls.kill_self))
    assert listener.wait_for([TryKey(1)], 30)[0].verdict is Verdict.LOST
    with pytest.raises(ExecutorBroken, match="function that makes the pool"):
        executor.submit(TryKey(2), Call(calls.nothing))
    executor.shutdown(5)
    pool.shutdown()


def test_what_is_no_pool_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="no pool"):
        FuturesExecutor("x", 3)  # type: ignore[arg-type]  # the point of the test


def test_reports_never_come_from_inside_submit_even_if_the_pool_is_instant(
    tmp_path: Path, listener: RecordingListener
) -> None:
    class Instant(concurrent.futures.Executor):
        def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
            future: Future[Any] = Future()
            future.set_result(fn(*args, **kwargs))
            return future

    executor = FuturesExecutor("instant", Instant())
    executor.start(make_context(tmp_path, listener, label="instant"))
    with listener.submitting():
        executor.submit(TryKey(1), Call(calls.double, (2,)))
    assert listener.wait_for([TryKey(1)], 10)[0].value == 4
    assert threading.active_count() >= 1
    executor.shutdown(5)
