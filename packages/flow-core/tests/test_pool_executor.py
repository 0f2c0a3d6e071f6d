"""A kernel as an executor of concurrent.futures: submit, map with chunks, shutdown, with, asyncio."""

from __future__ import annotations

import asyncio
import concurrent.futures
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from kernel_apps import Load, add

import flow_core as flow
from flow_core import FlowPoolExecutor
from flow_core.errors import ConfigurationError, NoDataFlowKernelError
from flow_core.executors.threads import ThreadPoolExecutor
from flow_core.testing import MemoryExecutor


def double(x: int) -> int:
    return 2 * x


@pytest.fixture(params=["threads", "processes"])
def pool(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[FlowPoolExecutor]:
    runs = ThreadPoolExecutor(max_threads=2) if request.param == "threads" else ProcessPoolExecutor(2)
    with FlowPoolExecutor(flow.Config([runs], run_dir=tmp_path)) as made:
        yield made
    if isinstance(runs, ProcessPoolExecutor):
        runs.shutdown()


def test_it_does_what_the_librarys_pools_do(pool: FlowPoolExecutor) -> None:
    assert isinstance(pool, concurrent.futures.Executor)
    future = pool.submit(pow, 2, exp=10)
    assert future.result(30) == 1024
    assert list(pool.map(double, range(5))) == [0, 2, 4, 6, 8]
    assert list(pool.map(pow, [2, 3, 4], [5, 6])) == [32, 729]
    done, _ = concurrent.futures.wait([pool.submit(double, 1), pool.submit(double, 2)], timeout=30)
    assert sorted(future.result() for future in done) == [2, 4]


@pytest.mark.parametrize("chunksize", [2, 3, 100])
def test_a_map_in_chunks_gives_the_same_results_by_fewer_tasks(pool: FlowPoolExecutor, chunksize: int) -> None:
    before = pool.kernel.task_count
    assert list(pool.map(pow, range(7), [2] * 7, chunksize=chunksize)) == [x * x for x in range(7)]
    assert pool.kernel.task_count - before == -(-7 // chunksize)


def test_what_a_call_raises_comes_out_of_its_future_and_of_a_map(pool: FlowPoolExecutor) -> None:
    with pytest.raises(ZeroDivisionError):
        pool.submit(divmod, 1, 0).result(30)
    results = pool.map(divmod, [4, 1, 3], [2, 0, 3], chunksize=1)
    assert next(results) == (2, 0)
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_futures_may_be_arguments(pool: FlowPoolExecutor) -> None:
    assert pool.submit(double, pool.submit(double, 5)).result(30) == 20


def test_asyncio_runs_its_calls_there(pool: FlowPoolExecutor) -> None:
    async def both() -> list[int]:
        loop = asyncio.get_running_loop()
        return await asyncio.gather(*(loop.run_in_executor(pool, double, n) for n in (3, 4)))

    assert asyncio.run(asyncio.wait_for(both(), 30)) == [6, 8]


def test_a_pool_of_a_config_has_a_kernel_of_its_own_which_ends_with_it(tmp_path: Path) -> None:
    with FlowPoolExecutor(flow.Config(run_dir=tmp_path)) as pool:
        kernel = pool.kernel
        future = pool.submit(double, 1)
        with pytest.raises(NoDataFlowKernelError):
            flow.dfk()
    assert future.done()
    assert not kernel.is_open
    with pytest.raises(RuntimeError, match="after shutdown"):
        pool.submit(double, 1)


def test_a_pool_of_a_kernel_leaves_it_running_and_waits_for_its_own_calls_alone(load: Load) -> None:
    executor = MemoryExecutor("memory")
    kernel = load(executor)
    other = add(1)
    for calls, pool in enumerate((FlowPoolExecutor(kernel=kernel), FlowPoolExecutor()), 2):
        with pool:
            future = pool.submit(double, 4)
            executor.finish(executor.wait_submitted(calls)[-1], 8)
        assert future.result(1) == 8
    assert kernel.is_open
    assert not other.done()


def test_shutdown_without_waiting_takes_no_more_calls_and_ends_the_kernel_after_the_last_one(tmp_path: Path) -> None:
    gate = threading.Event()
    pool = FlowPoolExecutor(flow.Config(run_dir=tmp_path))
    future = pool.submit(gate.wait, 30)
    pool.shutdown(wait=False)
    with pytest.raises(RuntimeError, match="after shutdown"):
        pool.submit(double, 1)
    assert pool.kernel.is_open
    gate.set()
    pool.shutdown()
    assert future.result(1) is True
    assert not pool.kernel.is_open


def test_cancel_futures_cancels_what_has_not_begun(tmp_path: Path) -> None:
    gate, began = threading.Event(), threading.Event()

    def hold() -> bool:
        began.set()
        return gate.wait(30)

    pool = FlowPoolExecutor(flow.Config([ThreadPoolExecutor(max_threads=1)], run_dir=tmp_path))
    first, second = pool.submit(hold), pool.submit(double, 1)
    assert began.wait(30)
    pool.shutdown(wait=False, cancel_futures=True)
    assert second.cancelled()
    gate.set()
    pool.shutdown()
    assert first.result(1) is True


def test_apps_may_be_called_and_run_on_the_kernel_of_the_pool(tmp_path: Path) -> None:
    with FlowPoolExecutor(flow.Config(run_dir=tmp_path)) as pool:
        assert list(pool.map(add, [1, 2])) == [2, 3]
        assert pool.kernel.task_count == 2
        with pytest.raises(ValueError, match="each call of an app"):
            pool.map(add, [1, 2], chunksize=2)


def test_labels_say_where_calls_run(tmp_path: Path) -> None:
    memory = MemoryExecutor("memory")
    config = flow.Config([ThreadPoolExecutor("threads"), memory], run_dir=tmp_path)
    with flow.load(config) as kernel:
        assert FlowPoolExecutor(kernel=kernel, executors="threads").submit(double, 2).result(10) == 4
        future = FlowPoolExecutor(kernel=kernel, executors=["memory"]).submit(double, 3)
        memory.finish(memory.wait_submitted(1)[0], 6)
        assert future.result(10) == 6


def test_a_kernel_that_was_cleaned_up_takes_no_calls(load: Load) -> None:
    kernel = load()
    pool = FlowPoolExecutor(kernel=kernel)
    kernel.cleanup()
    with pytest.raises(RuntimeError, match="cleaned up"):
        pool.submit(double, 1)
    pool.shutdown()


WRONG: list[dict[str, Any]] = [{"config": 5}, {"kernel": 5}, {"executors": 5}, {"executors": []}, {"executors": [5]}]


@pytest.mark.parametrize("options", WRONG, ids=str)
def test_what_is_wrong_is_refused_by_name(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="(?i)" + next(iter(options))):
        FlowPoolExecutor(**options)


def test_chunks_of_less_than_one_call_are_refused(load: Load) -> None:
    load()
    with pytest.raises(ValueError, match="chunksize"):
        FlowPoolExecutor().map(double, [1], chunksize=0)


def test_a_script_that_does_not_wait_ends_when_its_calls_are_done(tmp_path: Path) -> None:
    program = f"""
import flow_core as flow, time
pool = flow.FlowPoolExecutor(flow.Config(run_dir={str(tmp_path)!r}))
pool.submit(lambda: time.sleep(0.3) or print("done"))
pool.shutdown(wait=False)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr, done.returncode) == ("done\n", "", 0)
