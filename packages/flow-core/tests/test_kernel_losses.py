"""Failures of what runs the tasks: budgets of their own, and errors with names."""

from __future__ import annotations

import pytest
from kernel_apps import Load, add, hold

import flow_core as flow
from flow_core.errors import TaskExceedsBlock, TaskKillsWorkers, TaskRefused, WorkerLost
from flow_core.interfaces.call import Call, TryKey
from flow_core.interfaces.outcome import Loss, LossKind, Place, Verdict
from flow_core.testing import MemoryExecutor


def test_losses_do_not_spend_retries(load: Load) -> None:
    executor = MemoryExecutor("memory")
    load(executor, retries=0, infrastructure_retries=2)
    future = add(1)
    for _ in range(2):
        executor.lose(hold(executor), LossKind.MANAGER)
    executor.run_all()
    assert future.result(10) == 2


def test_a_task_lost_too_often_ends_with_a_named_error(load: Load) -> None:
    executor = MemoryExecutor("memory")
    load(executor, infrastructure_retries=1, max_worker_kills=9)
    future = add(1)
    for _ in range(2):
        executor.lose(hold(executor), LossKind.WORKER, "out of memory")
    error = future.exception(10)
    assert isinstance(error, WorkerLost)
    assert error.loss is not None
    for part in ("task 0 (add)", "SIGKILL", "out of memory", "infrastructure_retries=1"):
        assert part in str(error)


def test_a_task_that_kills_workers_is_stopped(load: Load) -> None:
    executor = MemoryExecutor("memory")
    load(executor, infrastructure_retries=100, max_worker_kills=3)
    future = add(1)
    for _ in range(3):
        executor.lose(hold(executor), LossKind.WORKER)
    assert isinstance(future.exception(10), TaskKillsWorkers)


def test_a_task_longer_than_its_block_is_told_so(load: Load) -> None:
    executor = MemoryExecutor("memory")
    load(executor)
    future = add(1)
    for _ in range(2):
        executor.lose(hold(executor), LossKind.WALLTIME)
    with pytest.raises(TaskExceedsBlock, match="walltime"):
        future.result(10)


def test_an_app_that_must_not_run_twice_is_not(load: Load) -> None:
    executor = MemoryExecutor("memory")
    load(executor)

    @flow.python_app(rerun_on_loss=False)
    def once() -> None:
        return None

    future = once()
    executor.lose(hold(executor), LossKind.WORKER)
    with pytest.raises(WorkerLost, match="rerun_on_loss=False"):
        future.result(10)


def test_a_returned_try_costs_nothing(load: Load) -> None:
    executor = MemoryExecutor("memory")
    load(executor, retries=0, infrastructure_retries=0)
    future = add(1)
    for _ in range(20):
        executor.give_back(hold(executor))
    executor.run_all()
    assert future.result(10) == 2


def test_a_refused_task_goes_to_another_executor_or_fails_with_the_reason(load: Load) -> None:
    one, two = MemoryExecutor("one"), MemoryExecutor("two")
    load(one, two, executor_chooser=lambda labels, task: labels[0])
    future, doomed = add(1), add(2)
    for key in one.wait_submitted(2):
        one.refuse(key, TypeError("does not fit"))
    first, second = two.wait_submitted(2)
    two.run(first)
    two.refuse(second, TypeError("nor here"))
    assert future.result(10) == 2
    with pytest.raises(TypeError, match="nor here"):
        doomed.result(10)


def test_a_refusal_names_the_task_its_app_and_the_executors(load: Load) -> None:
    one, two = MemoryExecutor("one"), MemoryExecutor("two")
    load(one, two, executor_chooser=lambda labels, task: labels[0])
    futures = [add(1), add(2)]
    error = TaskRefused("no node of this executor can ever run it")
    for executor in (one, two):
        for key in executor.wait_submitted(2):
            executor.refuse(key, error)
    for number, future in enumerate(futures):
        with pytest.raises(TaskRefused) as told:
            future.result(10)
        assert str(told.value) == f"task {number} (add) was refused by executor 'one', executor 'two': {error}"


def test_the_death_of_a_worker_that_its_manager_describes_is_told_once(load: Load) -> None:
    executor = MemoryExecutor("memory")
    load(executor, max_worker_kills=1)
    future = add(1)
    died = "worker 0 (pid 7) on node n, block 0, was killed by SIGKILL while it was running the task"
    executor.lose(hold(executor), LossKind.WORKER, died)
    text = str(future.exception(10))
    assert f"The last one: {died} (" in text
    assert "the worker that ran it" not in text


class Nodes(MemoryExecutor):
    """An executor with nodes, which knows where each try was to go."""

    avoids_nodes = True

    def __init__(self) -> None:
        super().__init__("nodes")
        self.avoided: list[tuple[str, ...] | None] = []

    def submit(self, key: TryKey, call: Call, /) -> None:
        self.avoided.append(call.spec.avoid)
        super().submit(key, call)

    def is_at(self, node: str) -> None:
        self._place = Place("nodes", "0", node)

    def nth(self, count: int) -> TryKey:
        """Wait for a try; those of foreign executors are handed over on a thread of their own."""
        return self.wait_submitted(count)[count - 1]


def test_a_task_that_is_tried_again_avoids_the_nodes_on_which_it_failed(load: Load) -> None:
    executor = Nodes()
    load(executor, retries=1)
    future = add(1)
    executor.is_at("b")
    executor.lose(executor.nth(1), LossKind.MANAGER)
    executor.is_at("a")
    executor.fail(executor.nth(2), ValueError("again"))
    executor.run(executor.nth(3))
    assert future.result(10) == 2
    assert executor.avoided == [None, ("b",), ("a", "b")]


def test_executors_that_know_no_nodes_are_told_of_none(load: Load) -> None:
    executor = Nodes()
    executor.avoids_nodes = False
    load(executor, retries=1)
    future = add(1)
    executor.is_at("a")
    executor.fail(executor.nth(1), ValueError("again"))
    executor.run(executor.nth(2))
    assert future.result(10) == 2
    assert executor.avoided == [None, None]


@pytest.mark.parametrize("rerun", [True, False])
def test_what_no_node_could_load_fails_with_the_true_error(load: Load, rerun: bool) -> None:
    executor = Nodes()
    load(executor, infrastructure_retries=2)

    @flow.python_app(rerun_on_loss=rerun)
    def app() -> None:
        return None

    future = app()
    error, tries = ModuleNotFoundError("No module named 'helper'"), 3 if rerun else 1
    for number in range(tries):
        executor.is_at(f"n{number}")
        key = executor.nth(number + 1)
        loss = Loss(LossKind.NODE, Place("nodes", "0", f"n{number}"), reason="it has no helper")
        executor._report(key, Verdict.LOST, error=error, loss=loss)
    assert future.exception(10) is error
    assert len(executor.avoided) == tries


def test_a_task_that_another_node_could_load_is_well(load: Load) -> None:
    executor = Nodes()
    load(executor, retries=0)
    future = add(1)
    executor.is_at("bad")
    key = executor.nth(1)
    executor._report(key, Verdict.LOST, error=ImportError("x"), loss=Loss(LossKind.NODE, executor._place, reason="x"))
    executor.run(executor.nth(2))
    assert future.result(10) == 2
    assert executor.avoided == [None, ("bad",)]


def test_a_try_that_was_told_of_the_end_of_its_block_is_made_again_without_any_budget(load: Load) -> None:
    executor = MemoryExecutor("memory")
    load(executor, retries=0, infrastructure_retries=0)
    future = add(1)
    for _ in range(20):
        executor.requeue(hold(executor))
    why = str(future.why())
    assert "20 were to be run again, told that the block ends (which costs nothing); the last: Requeue: saved" in why
    executor.run_all()
    assert future.result(10) == 2


def test_a_killed_try_that_asks_to_be_run_again_is_not(load: Load) -> None:
    executor = MemoryExecutor("memory")
    load(executor)
    future = add(1)
    key = hold(executor)
    executor.begin(key)
    future.cancel(kill=True)
    assert future.cancelled()
