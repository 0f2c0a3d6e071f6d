"""Nested waits: which task's thread waits for which task, and whether that could ever end."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from flow_core.futures.app_future import AppFuture
from flow_core.futures.data_future import DataFuture
from flow_core.futures.derived import DerivedFuture
from flow_core.graph.states import State
from flow_core.graph.task import Task
from flow_core.interfaces.call import Call

_SEARCHED = 1000  # tasks that are looked at for a circle; the pool's lock is held meanwhile

ADVICE = "Make it a @join_app that returns the future instead of waiting for it"


def task_behind(future: Future[Any] | None) -> Task | None:
    """Return the unfinished task that a future comes from, if there is one."""
    while isinstance(future, (DataFuture, DerivedFuture)) and future._parent is not None:
        future = future._parent
    handle = future._handle if isinstance(future, AppFuture) else None
    return handle if isinstance(handle, Task) else None


def circle(call: Call, goal: Task, awaited: Callable[[Task], Future[Any] | None]) -> list[Call]:
    """Return the tasks of a circle that is closed when one task's thread begins to wait for another task.

    Args:
        call: The task that is about to wait.
        goal: The task that it waits for.
        awaited: Gives the future that the thread of a task waits for, None if it waits for none.

    Returns:
        The tasks in the order of waiting, the first being ``call``; none where there is no circle, or only one of very
        many tasks.
    """
    way: list[Call] = [call]
    task: Task | None = goal
    while task is not None and len(way) < _SEARCHED:
        if task is call:
            return way
        way.append(task)
        if _depends(task, call):
            return way
        task = task_behind(awaited(task))
    return []


def _depends(task: Task, call: Call) -> bool:
    """Return whether a task waits, through arguments, for another one. The graph may change meanwhile: a good guess."""
    todo: deque[Any] = deque((call,) if isinstance(call, Task) else ())
    seen: set[int] = set()
    while todo and len(seen) < _SEARCHED:
        # A copy: the graph appends without this pool's lock.
        for child in tuple(todo.popleft().children or ()):
            if child is task:
                return True
            if id(child) not in seen and child.state < State.exec_done:
                seen.add(id(child))
                todo.append(child)
    return False


def circle_text(way: list[Call]) -> str:
    """Return what is wrong with a circle, and what to do."""
    if len(way) == 1:
        return (
            f"{way[0]} waits for its own end, which can never come: a task cannot ask for its own result, nor wait for "
            "all tasks of the run"
        )
    named = ", which waits for ".join(str(task) for task in [*way[1:], way[0]])
    return f"{way[0]} waits for {named}: none of them could ever end. {ADVICE}"
