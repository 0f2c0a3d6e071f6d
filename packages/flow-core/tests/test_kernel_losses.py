"""Failures of what runs the tasks: budgets of their own, and errors with names."""

from __future__ import annotations

import pytest
from kernel_apps import Load, add, hold

import flow_core as flow
from flow_core.errors import TaskExceedsBlock, TaskKillsWorkers, WorkerLost
from flow_core.interfaces.outcome import LossKind
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
    for key in list(one.waiting):
        one.refuse(key, TypeError("does not fit"))
    first, second = two.wait_submitted(2)
    two.run(first)
    two.refuse(second, TypeError("nor here"))
    assert future.result(10) == 2
    with pytest.raises(TypeError, match="nor here"):
        doomed.result(10)
