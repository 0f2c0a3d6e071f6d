"""Task records: what hooks of the user's and programs that look at tasks get."""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import flow_core
from flow_core import TaskView
from flow_core.active import active_or_none
from flow_core.graph.task import Task


class States(IntEnum):
    """States of tasks, with Parsl's numbers. Those that Flow has besides count as the nearest of these."""

    unsched = -1
    pending = 0
    running = 2
    exec_done = 3
    failed = 4
    dep_fail = 5
    launched = 7
    fail_retryable = 8
    memo_done = 9
    joining = 10
    running_ended = 11


_NEAREST = {"staging": "launched", "cancelled": "failed"}


FINAL_STATES = [States.exec_done, States.memo_done, States.failed, States.dep_fail]
FINAL_FAILURE_STATES = [States.failed, States.dep_fail]


def state_named(name: str) -> States:
    """Return a state by Flow's name of it."""
    return States[_NEAREST.get(name, name)]


class TaskRecord(dict[str, Any]):
    """What is known of a task, by Parsl's names: a dict, made when it is asked for."""


def record_of(given: Task | TaskView, dfk: object = None) -> TaskRecord:
    """Return the record of a task that has not ended."""
    task = given if isinstance(given, TaskView) else TaskView(given)
    return TaskRecord(
        id=task.tid,
        dfk=active_or_none() if dfk is None else dfk,
        func_name=task.app,
        func=task.func,
        args=task.args,
        kwargs=task.kwargs,
        app_fu=task.future,
        status=state_named(task.state),
        executor=task.executor,
        try_id=max(0, task.tries - 1),
        fail_count=task.failures + task.losses,
        fail_cost=task.cost,
        memoize=task.cached,
        ignore_for_cache=list(task.ignore_for_cache),
        join=task.kind == "join",
        resource_specification=task.resources,
        depends=[],
    )


def record_of_future(future: flow_core.AppFuture[Any]) -> TaskRecord:
    """Return what is known of the task of a future, which may have ended."""
    handle = future._handle
    if isinstance(handle, Task):
        return record_of(handle)
    return TaskRecord(
        id=future.tid,
        func_name=getattr(handle, "app", ""),
        app_fu=future,
        status=state_named(future.task_status()),
    )
