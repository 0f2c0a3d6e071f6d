"""The executor of concurrent.futures over it, tasks as hooks see them, added executors, states of managers."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

import flow
from flow import Config, FlowPoolExecutor, TaskView
from flow.executors import HighThroughputExecutor, ThreadPoolExecutor
from flow.providers import LocalProvider
from flow_executors.testing.local_run import wait_until

pytestmark = pytest.mark.slow
SCALE = 3


def workers(label: str = "htex") -> HighThroughputExecutor:
    return HighThroughputExecutor(label, max_workers=2, provider=LocalProvider(init_blocks=1, max_blocks=1))


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[flow.DataFlowKernel]:
    monkeypatch.setenv("FLOW_JOBS_LEDGER", str(tmp_path / "jobs.ledger"))
    with flow.load(Config([workers()], run_dir=tmp_path)) as made:
        yield made


def scaled(x: int) -> tuple[int, bool]:
    return SCALE * x, os.getpid() == parent


parent = os.getpid()


def test_a_pool_over_it_runs_calls_in_its_workers(kernel: flow.DataFlowKernel) -> None:
    with FlowPoolExecutor(kernel=kernel) as pool:
        assert list(pool.map(scaled, range(4), chunksize=2)) == [(SCALE * x, False) for x in range(4)]
        assert pool.submit(scaled, 5).result(30) == (15, False)

        async def there() -> tuple[int, bool]:
            return await asyncio.get_running_loop().run_in_executor(pool, scaled, 6)

        assert asyncio.run(asyncio.wait_for(there(), 30)) == (18, False)
        with pytest.raises(ZeroDivisionError):
            pool.submit(divmod, 1, 0).result(30)


def test_managers_tell_what_they_have_and_whether_they_take_more(kernel: flow.DataFlowKernel) -> None:
    executor = kernel.executors["htex"]
    assert isinstance(executor, HighThroughputExecutor)
    with FlowPoolExecutor(kernel=kernel) as pool:
        assert pool.submit(scaled, 1).result(30)
        # The result may be here before the interchange has heard of it.
        wait_until(lambda: executor.manager_states()[0].tasks == 0, "a task is left")
        (state,) = executor.manager_states()
        assert (state.workers, state.tasks, state.active, state.draining) == (2, 0, True, False)
        assert state.python.count(".") == 2
        executor.hold_worker(state.manager)
        (held,) = executor.manager_states()
        assert (held.held, held.active) == (True, False)


def test_it_may_be_added_to_a_run_of_threads_whose_tasks_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOW_JOBS_LEDGER", str(tmp_path / "jobs.ledger"))

    def last(labels: list[str], task: TaskView) -> str:
        return labels[-1]

    app = flow.python_app(scaled)
    with flow.load(Config([ThreadPoolExecutor()], run_dir=tmp_path, executor_chooser=last)) as kernel:
        before = app(1)
        assert before.result(30) == (3, True)
        kernel.add_executors([workers()])
        waiting = [app(x) for x in range(4)]
        assert [future.result(30) for future in waiting] == [(3 * x, False) for x in range(4)]
    wait_until(lambda: not kernel.tasks, "tasks are left")


def test_a_retry_handler_sees_the_node_on_which_a_task_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOW_JOBS_LEDGER", str(tmp_path / "jobs.ledger"))
    seen: list[tuple[object, ...]] = []

    def price(error: BaseException, task: TaskView) -> float:
        seen.append((task.app, task.executor, task.tries, task.failed_nodes))
        return 1

    @flow.python_app
    def fail() -> None:
        raise ValueError("no")

    with flow.load(Config([workers()], run_dir=tmp_path, retries=1, retry_handler=price)):
        assert isinstance(fail().exception(60), ValueError)
    assert [one[:3] for one in seen] == [("fail", "htex", 1), ("fail", "htex", 2)]
    assert seen[1][3] == (os.uname().nodename,)
