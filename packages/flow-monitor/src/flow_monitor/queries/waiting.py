"""Reasons why a task is not done, as far as events tell: dependencies, tasks queued ahead, blocks on their way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sqlalchemy import func, select
from sqlalchemy.engine import Connection

from flow_monitor.queries import blocks
from flow_monitor.queries.records import Dependency, StatusChange, Task, Waiting
from flow_monitor.schema import tables as t

_T = t.task.c
_ENDED_WELL = ("exec_done", "memo_done")
_ENDED = (*_ENDED_WELL, "failed", "dep_fail", "cancelled")
_LOOKED_AT = 2000
"""Dependencies of one task that are looked at, at most: a reduction may have a million."""
_SHOWN = 100  # entries of a list on the page; the rest is a number
_COUNTED = 10_000
"""Tasks ahead that are counted, at most; beyond it the page shows "more than"."""
_PORTION = 500  # ids a statement: older libraries of SQLite take 999 values in one
_BLOCK_ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "MISSING", "SCALED_IN")


def of_task(
    connection: Connection,
    run_id: str,
    task: Task,
    waits_for: Sequence[int],
    history: Sequence[StatusChange],
    executor: str,
) -> Waiting | None:
    """Return why a task is not done; None for one that has ended. Reads little, however large the run is.

    ``waits_for`` are the tasks that a join task waits for, ``executor`` is the one of the last try.
    """
    if task.status in _ENDED:
        return None
    # What a task waits for depends on its state; in others, such as "running", on nothing.
    unmet = {"joining": waits_for, "pending": task.depends, "unsched": task.depends, "": task.depends}
    depends = unmet.get(task.status, ())
    found = _dependencies(connection, run_id, depends[:_LOOKED_AT])
    going_on = [one for one in found if one.status not in _ENDED]
    waiting = Waiting(
        since=history[-1].time_ns if history else task.time_invoked,
        dependencies=tuple(going_on[:_SHOWN]),
        dependencies_total=len(going_on) + max(0, len(depends) - _LOOKED_AT),
        failed=tuple(one for one in found if one.status in _ENDED and one.status not in _ENDED_WELL)[:_SHOWN],
    )
    if task.status == "launched":
        waiting = _queued(connection, run_id, task.task_id, executor, waiting)
    if task.status in ("launched", "running"):
        waiting = replace(waiting, held=blocks.held(connection, run_id, executor)[:_SHOWN])
    return waiting


def _queued(connection: Connection, run_id: str, task_id: int, executor: str, waiting: Waiting) -> Waiting:
    """Add what is in the way of a task that an executor has."""
    ahead = _ahead(connection, run_id, task_id, executor)
    nodes, workers = _nodes(connection, run_id, executor)
    own = [block for block in blocks.blocks(connection, run_id) if block.executor == executor]
    with_nodes = _blocks_with_nodes(connection, run_id, executor) if own else frozenset()
    coming = [block for block in own if block.status not in _BLOCK_ENDED and block.block not in with_nodes]
    return replace(
        waiting,
        executor=executor,
        ahead=min(ahead, _COUNTED),
        ahead_more=ahead > _COUNTED,
        nodes=nodes,
        workers=workers,
        blocks=tuple(coming[:_SHOWN]),
        blocks_failed=sum(block.status in ("FAILED", "TIMEOUT") for block in own),
    )


def _dependencies(connection: Connection, run_id: str, task_ids: Sequence[int]) -> list[Dependency]:
    found: list[Dependency] = []
    for start in range(0, len(task_ids), _PORTION):
        query = (
            select(_T.task_id, _T.task_func_name, _T.task_status)
            .where(_T.run_id == run_id, _T.task_id.in_(task_ids[start : start + _PORTION]))
            .order_by(_T.task_id)
        )
        found += [
            Dependency(row.task_id, row.task_func_name or "", row.task_status or "")
            for row in connection.execute(query)
        ]
    return found


def _ahead(connection: Connection, run_id: str, task_id: int, executor: str) -> int:
    """Return how many tasks called before one are queued at its executor; of very many, of the first 10,001."""
    a, y = t.app_status.c, t.try_.c
    # The apps with queued tasks are asked first: with app and state given the index has the tasks in order of ids.
    names = select(a.task_func_name).where(a.run_id == run_id, a.task_status == "launched", a.tasks > 0)
    earlier = (
        select(_T.task_id)
        .where(
            _T.run_id == run_id,
            _T.task_func_name.in_([row.task_func_name for row in connection.execute(names)]),
            _T.task_status == "launched",
            _T.task_id < task_id,
        )
        .limit(_COUNTED + 1)
        .subquery()
    )
    same = (
        select(func.count())
        .select_from(t.try_.join(earlier, y.task_id == earlier.c.task_id))
        .where(y.run_id == run_id, y.task_executor == executor, y.task_try_time_returned.is_(None))
    )
    return int(connection.execute(same).scalar_one())


def _nodes(connection: Connection, run_id: str, executor: str) -> tuple[int, int]:
    """Return how many managers of an executor are connected, and their workers."""
    n = t.node.c
    query = select(func.count(), func.coalesce(func.sum(n.worker_count), 0)).where(
        n.run_id == run_id, n.executor == executor, n.time_left.is_(None)
    )
    count, workers = connection.execute(query).one()
    return int(count), int(workers)


def _blocks_with_nodes(connection: Connection, run_id: str, executor: str) -> frozenset[str]:
    n = t.node.c
    query = select(n.block_id).where(n.run_id == run_id, n.executor == executor, n.time_left.is_(None)).distinct()
    return frozenset(row.block_id or "" for row in connection.execute(query))
