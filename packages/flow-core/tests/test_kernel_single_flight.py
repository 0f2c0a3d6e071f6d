"""Identical calls in flight."""

from __future__ import annotations

import threading

from kernel_apps import Load

import flow_core as flow
from flow_core.testing import MemoryExecutor


def test_identical_calls_in_flight_run_once_and_later_ones_not_at_all(load: Load) -> None:
    kernel = load(max_pending=None)
    runs: list[int] = []

    @flow.python_app(cache=True, ignore_for_cache=["gate", "log"])
    def slow(x: int, gate: threading.Event, log: list[int]) -> int:
        gate.wait(30)
        log.append(x)
        return x

    gate = threading.Event()
    futures = [slow(3, gate, runs) for _ in range(5)]
    assert {f.task_status() for f in futures} <= {"pending", "launched", "running"}
    gate.set()
    assert [f.result(10) for f in futures] == [3] * 5
    assert slow(3, gate, runs).task_status() == "memo_done"
    assert runs == [3]
    assert kernel.summary().memoized == 5


def test_each_of_identical_calls_in_flight_has_a_result_object_of_its_own(load: Load) -> None:
    executor = MemoryExecutor("memory")
    load(executor)
    app = flow.python_app(_rows, cache=True)
    futures = [app(2) for _ in range(3)]
    executor.run_all()
    for future in futures:
        assert future.result(10) == [0, 1]
        future.result().append("the caller's")
    assert app(2).result(10) == [0, 1]


def _rows(count: int) -> list[object]:
    return list(range(count))


def test_calls_share_a_result_that_cannot_be_copied(load: Load) -> None:
    executor = MemoryExecutor("memory")
    load(executor)
    app = flow.python_app(_lock, cache=True)
    futures = [app() for _ in range(2)]
    executor.run_all()
    assert futures[0].result(10) is futures[1].result(10) is app().result(10)


def _lock() -> object:
    return threading.Lock()


def test_followers_share_a_failure_and_the_next_call_runs_again(load: Load) -> None:
    executor = MemoryExecutor("memory")
    load(executor)
    app = flow.python_app(_fails, cache=True)
    futures = [app(1) for _ in range(3)]
    assert len(executor.waiting) == 1
    executor.run_all()
    assert {type(f.exception(10)) for f in futures} == {ValueError}
    app(1)
    assert len(executor.waiting) == 1


def _fails(x: int) -> None:
    raise ValueError(x)


def test_when_the_leader_is_cancelled_the_oldest_follower_leads(load: Load) -> None:
    executor = MemoryExecutor("memory")
    load(executor)
    app = flow.python_app(_double, cache=True)
    leader, heir, other = (app(4) for _ in range(3))
    assert leader.cancel()
    assert len(executor.waiting) == 1
    executor.run_all()
    assert (heir.result(10), other.result(10)) == (8, 8)
    assert (heir.task_status(), other.task_status()) == ("exec_done", "memo_done")


def _double(x: int) -> int:
    return 2 * x
