"""Which executor runs a task."""

from __future__ import annotations

import concurrent.futures
import multiprocessing
from typing import Any

import pytest
from kernel_apps import Load, add

import flow_core as flow
from flow_core.errors import ConfigurationError, NoDataFlowKernelError
from flow_core.interfaces.executor import Executor
from flow_core.testing import MemoryExecutor


def _double(x: int) -> int:
    return 2 * x


def test_an_unknown_label_is_an_error_at_the_call(load: Load) -> None:
    load()
    with pytest.raises(ConfigurationError, match=r"'nowhere'.*'threads'"):
        flow.python_app(_double, executors=["nowhere"])(1)


def test_apps_run_where_they_say(load: Load) -> None:
    one, two = MemoryExecutor("one"), MemoryExecutor("two")
    load(one, two)
    for _ in range(5):
        flow.python_app(_double, executors="two")(1)
    assert (len(one.waiting), len(two.waiting)) == (0, 5)


def test_stdlib_pools_are_taken_as_they_are(load: Load) -> None:
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        kernel = load(pool)
        assert add(1).result(10) == 2
        assert list(kernel.executors) == ["ThreadPoolExecutor"]
        flow.clear()
        assert pool.submit(_double, 2).result(10) == 4


def test_an_executor_that_does_not_start_leaves_nothing_behind(load: Load) -> None:
    class Bad(MemoryExecutor):
        def start(self, context: Any) -> None:
            raise OSError("no port")

    good = MemoryExecutor("good")
    with pytest.raises(Exception, match="no port"):
        load(good, Bad("bad"))
    with pytest.raises(NoDataFlowKernelError):
        flow.dfk()
    load(good)


def test_the_kernel_is_an_executors_listener_only_through_the_context(load: Load) -> None:
    kernel = load()
    assert all(isinstance(executor, Executor) for executor in kernel.executors.values())


@flow.python_app
def call_an_app() -> object:
    return add(1).result()


@pytest.mark.parametrize("start", ["fork", "forkserver"])
def test_an_app_called_in_a_task_of_a_process_says_how_else(load: Load, start: str) -> None:
    pool = concurrent.futures.ProcessPoolExecutor(1, mp_context=multiprocessing.get_context(start))
    load(pool)
    error = call_an_app().exception(30)
    assert isinstance(error, NoDataFlowKernelError)
    assert "inside a task" in str(error)
    assert "@join_app" in str(error)
    assert "call flow.load()" not in str(error)
    pool.shutdown()


@pytest.mark.parametrize("managed", [True, False])
def test_only_a_managed_executor_is_shut_down_with_the_kernel(load: Load, managed: bool) -> None:
    class Told(MemoryExecutor):
        ended = False

        def shutdown(self, *args: Any, **options: Any) -> None:
            self.ended = True
            super().shutdown(*args, **options)

    executor = Told("memory")
    executor.managed = managed
    load(executor)
    flow.clear()
    assert executor.ended is managed
    if not managed:
        executor.shutdown(1.0)
