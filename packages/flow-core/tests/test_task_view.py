"""Live tasks as users see them: ``kernel.tasks``, and what retry handlers and executor choosers are given."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import pytest
from kernel_apps import Load, add

import flow_core as flow
from flow_core import TaskView
from flow_core.executors.threads import ThreadPoolExecutor
from flow_core.testing import MemoryExecutor


@flow.python_app
def work(x: int, scale: int = 1) -> int:
    return x * scale


def test_the_unfinished_tasks_are_seen_as_they_are_whenever_they_are_looked_at(load: Load) -> None:
    executor = MemoryExecutor("memory")
    kernel = load(executor)
    tasks = kernel.tasks
    assert isinstance(tasks, Mapping)
    assert len(tasks) == 0
    first = work.options(label="L", resource_specification={"cores": 2})(3, scale=4, walltime=50)
    work(first)
    assert list(tasks) == [0, 1]
    one, two = tasks.values()
    assert (one, hash(one)) == (tasks[0], hash(tasks[0]))
    assert one != two
    assert (one.tid, one.app, one.kind, one.label, one.state, one.executor) == (
        0,
        "work",
        "python",
        "L",
        "launched",
        "memory",
    )
    assert (one.args, one.kwargs, one.walltime, one.resources) == ((3,), {"scale": 4}, 50.0, {"cores": 2.0})
    assert (one.tries, one.failures, one.losses, one.cost, one.cached) == (1, 0, 0, 0.0, False)
    assert one.future is first
    assert (two.state, two.executor, two.tries, two.args) == ("pending", None, 0, (first,))
    assert one.started_ns is None
    (key,) = executor.wait_submitted(1)
    executor.begin(key)
    assert tasks[0].state == "running"
    assert one.started_ns
    assert "task 0 (work)" in str(two.why(0))
    executor.finish(key, 12)
    assert first.result(10) == 12
    assert list(tasks) == [1]
    assert (one.state, two.args) == ("exec_done", (12,))
    with pytest.raises(KeyError):
        tasks[0]
    assert repr(one) == "<TaskView 0 work exec_done>"


def test_a_retry_handler_is_given_the_task_with_its_failures_so_far(load: Load) -> None:
    seen: list[tuple[Any, ...]] = []

    def handler(error: BaseException, task: TaskView) -> float:
        assert type(task) is TaskView
        seen.append((task.tid, task.app, task.args, task.tries, task.failures, task.cost, type(error)))
        return 0.5

    load(retries=1, retry_handler=handler)

    @flow.python_app
    def fail(x: int) -> None:
        raise ValueError(x)

    assert isinstance(fail(7).exception(10), ValueError)
    assert seen == [(0, "fail", (7,), n + 1, n, n * 0.5, ValueError) for n in range(3)]


def test_a_chooser_is_given_the_task(load: Load) -> None:
    def choose(labels: list[str], task: TaskView) -> str:
        assert type(task) is TaskView
        return "big" if task.kwargs.get("scale", 1) > 1 else labels[0]

    small, big = MemoryExecutor("small"), MemoryExecutor("big")
    kernel = load(small, big, executor_chooser=choose)
    futures = [work(1), work(1, scale=5)]
    small.finish(small.wait_submitted(1)[0], 1)
    big.finish(big.wait_submitted(1)[0], 5)
    assert [future.result(10) for future in futures] == [1, 5]
    assert len(kernel.tasks) == 0


def test_the_tasks_may_be_looked_at_from_many_threads_while_they_end(load: Load) -> None:
    kernel = load(ThreadPoolExecutor(max_threads=4))
    problems: list[BaseException] = []
    stop = threading.Event()

    def look() -> None:
        try:
            while not stop.is_set():
                for task in kernel.tasks.values():
                    str(task), repr(task), task.args, task.resources
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=look) for _ in range(2)]
    for thread in threads:
        thread.start()
    futures = [add(n) for n in range(300)]
    results = [future.result(30) for future in futures]
    stop.set()
    for thread in threads:
        thread.join(30)
    assert results == list(range(1, 301))
    assert not problems


def test_the_tasks_of_a_kernel_that_ended_are_none(load: Load) -> None:
    executor = MemoryExecutor("memory")
    kernel = load(executor)
    add(add(1))
    kernel.cleanup()
    assert len(kernel.tasks) == 0
