"""Tasks that wait for other tasks inside themselves, on threads: they give way, or are told that it could never end."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable
from typing import Any

import pytest
from kernel_apps import Load, add

import flow_core as flow
from flow_core.errors import DeadlockError
from flow_core.executors import thread_pool
from flow_core.executors.threads import ThreadPoolExecutor


def by_result(numbers: list[int]) -> int:
    return sum(add(number).result() for number in numbers)


def by_exception(numbers: list[int]) -> int:
    futures = [add(number) for number in numbers]
    return sum(future.result() for future in futures if future.exception() is None)


def by_wait(numbers: list[int]) -> int:
    done, _ = concurrent.futures.wait([add(number) for number in numbers])
    return sum(future.result() for future in done)


def by_as_completed(numbers: list[int]) -> int:
    return sum(future.result() for future in concurrent.futures.as_completed([add(number) for number in numbers]))


def by_map(numbers: list[int]) -> int:
    return sum(future.result() for future in flow.map(add, numbers))


def by_unordered_map(numbers: list[int]) -> int:
    return sum(future.result() for future in flow.map(add, numbers, ordered=False))


def by_asyncio(numbers: list[int]) -> int:
    async def gathered() -> int:
        return sum([await add(number) for number in numbers])

    return asyncio.run(gathered())


@flow.python_app
def nest(how: Callable[[list[int]], int], numbers: list[int]) -> int:
    return how(numbers)


WAYS = [by_result, by_exception, by_wait, by_as_completed, by_map, by_unordered_map, by_asyncio]


@pytest.mark.parametrize("how", WAYS)
def test_as_many_tasks_as_threads_may_wait_for_other_tasks(load: Load, how: Callable[[list[int]], int]) -> None:
    load(ThreadPoolExecutor(max_threads=2))
    futures = [nest(how, [number, number + 1]) for number in range(6)]
    assert [future.result(30) for future in futures] == [2 * number + 3 for number in range(6)]


@flow.python_app
def depth(level: int) -> int:
    return 0 if level == 0 else 1 + depth(level - 1).result()


def test_waits_may_be_nested_many_times_deeper_than_there_are_threads(load: Load) -> None:
    load(ThreadPoolExecutor(max_threads=1))
    assert depth(50).result(30) == 50


def test_no_more_than_max_threads_work_again_when_the_waits_are_over(load: Load) -> None:
    executor = ThreadPoolExecutor(max_threads=2)
    load(executor)
    assert nest(by_result, [1, 2, 3]).result(30) == 9
    assert [future.result(30) for future in [nest(by_result, [1]) for _ in range(20)]] == [2] * 20
    most, now, lock = 0, 0, threading.Lock()
    turns = threading.Barrier(2)

    @flow.python_app
    def count_workers() -> None:
        nonlocal most, now
        with lock:
            now += 1
            most = max(most, now)
        turns.wait(20)  # two work at once, and not more
        with lock:
            now -= 1

    pool = executor._pool
    assert pool is not None
    for future in [count_workers() for _ in range(40)]:
        future.result(30)
    assert len(pool._workers) + pool._missing - pool._surplus == 2
    assert (pool._parked, len(pool.running)) == (0, 0)


def test_a_task_cannot_wait_for_itself(load: Load) -> None:
    kernel = load()

    @flow.python_app
    def wait_for_all() -> None:
        kernel.wait_for_current_tasks()

    error = wait_for_all().exception(20)
    assert isinstance(error, DeadlockError)
    assert "task 0 (wait_for_all) waits for its own end" in str(error)


def test_nor_for_a_task_whose_thread_waits_for_it(load: Load) -> None:
    load(ThreadPoolExecutor(max_threads=4))
    futures: list[Any] = []
    both_known = threading.Event()

    @flow.python_app
    def wait_for(place: int) -> Any:
        both_known.wait(20)
        return futures[place].result()

    futures += [wait_for(1), wait_for(0)]
    both_known.set()
    errors = [future.exception(20) for future in futures]
    texts = [str(error) for error in errors]
    assert all(isinstance(error, DeadlockError) for error in errors)
    assert any(
        "task 0 (wait_for) waits for task 1 (wait_for)" in t or "task 1 (wait_for) waits for" in t for t in texts
    )
    assert "@join_app" in texts[0]


def test_nor_for_a_task_that_depends_on_it(load: Load) -> None:
    load()
    dependent: list[Any] = []
    known = threading.Event()

    @flow.python_app
    def wait_for_dependent() -> Any:
        known.wait(20)
        return dependent[0].result()

    future = wait_for_dependent()
    dependent.append(add(add(future)))
    known.set()
    error = future.exception(20)
    assert isinstance(error, DeadlockError)
    assert "task 0 (wait_for_dependent) waits for task 2 (add), which waits for task 0" in str(error)


def test_a_wait_that_no_thread_is_left_for_is_refused_by_name(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thread_pool, "MOST_PARKED", 3)
    load(ThreadPoolExecutor("few", max_threads=1))
    error = depth(10).exception(20)
    text = str(error)
    assert isinstance(error, DeadlockError)
    assert "task 3 (depth) waits for task 4 (depth), which needs a thread of the same executor" in text
    assert "3 threads of executor 'few'" in text
    assert "task 0 (depth) for task 1 (depth)" in text
    assert "@join_app" in text


def test_join_bodies_may_wait_too(load: Load) -> None:
    load(ThreadPoolExecutor(max_threads=1))

    @flow.join_app
    def waiting_body(number: int) -> Any:
        return add(add(number).result())

    assert waiting_body(1).result(20) == 3


def test_what_waits_for_whom_is_told(load: Load) -> None:
    load(ThreadPoolExecutor(max_threads=1))
    release, inner_runs = threading.Event(), threading.Event()

    @flow.python_app
    def inner() -> None:
        inner_runs.set()
        release.wait(20)

    @flow.python_app
    def outer() -> None:
        inner().result()

    future = outer()
    assert inner_runs.wait(20)
    told = str(future.why())
    release.set()
    assert "it waits inside for task 1 (inner), which is running" in told
    future.result(20)
