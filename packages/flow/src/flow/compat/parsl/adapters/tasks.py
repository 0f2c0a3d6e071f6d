"""Task records: what hooks of the user's and programs that look at tasks get."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Any

import flow_core
from flow_core.graph.task import Task

if TYPE_CHECKING:
    from collections.abc import Mapping


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


def record_of(task: Task, dfk: object = None) -> TaskRecord:
    """Return the record of a task that has not ended."""
    spec = task.spec
    resources: Mapping[str, object] = {"cores": spec.resources.cores, "memory": spec.resources.memory_mb}
    return TaskRecord(
        id=task.tid,
        dfk=task.home if dfk is None else dfk,
        func_name=task.app.name,
        func=task.app.func,
        args=task.args,
        kwargs=task.kwargs,
        app_fu=task.future,
        status=state_named(task.state.name),
        executor=getattr(task.executor, "label", None),
        try_id=max(0, task.tries - 1),
        fail_count=0 if task.spent is None else max(0, task.tries - 1),
        memoize=task.app.cache,
        ignore_for_cache=list(task.app.identity.ignore),
        join=task.app.kind.value == "join",
        resource_specification=dict(resources),
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
