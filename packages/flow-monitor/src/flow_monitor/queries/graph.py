"""The graph of a run: of tasks, of stages (tasks of one app at one depth), of apps."""

from __future__ import annotations

from sqlalchemy import func, select
from sqlalchemy.engine import Connection

from flow_monitor.queries import rows, workflows
from flow_monitor.queries.records import AppGraph, GraphTask, Stage
from flow_monitor.schema import tables as t

_T = t.task.c


def tasks(connection: Connection, run_id: str, limit: int = 20_000) -> tuple[GraphTask, ...]:
    """Return the tasks of a run as nodes, by id; the first ones where there are more than the limit."""
    query = (
        select(
            _T.task_id,
            _T.task_func_name,
            _T.task_status,
            _T.task_depends,
            _T.task_depth,
            _T.task_run_time,
            _T.task_parent,
        )
        .where(_T.run_id == run_id)
        .order_by(_T.task_id)
        .limit(limit)
    )
    joined = waits(connection, run_id)
    return tuple(
        GraphTask(
            task_id,
            app or "",
            status or "",
            rows.ids(depends),
            depth or 0,
            max(0, run_time or 0) / 1e9,
            parent,
            joined.get(task_id, ()),
        )
        for task_id, app, status, depends, depth, run_time, parent in connection.execute(query)
    )


def waits(connection: Connection, run_id: str, task_id: int | None = None) -> dict[int, tuple[int, ...]]:
    """Return the tasks that each join task of a run, or one of them, waits for."""
    j = t.joined.c
    query = select(j.task_id, j.waits_for).where(j.run_id == run_id)
    if task_id is not None:
        query = query.where(j.task_id == task_id)
    return {row.task_id: rows.ids(row.waits_for) for row in connection.execute(query)}


def states(connection: Connection, run_id: str, limit: int = 20_000) -> dict[int, str]:
    """Return the state of each task: the part of the graph that changes while its shape stays."""
    query = select(_T.task_id, _T.task_status).where(_T.run_id == run_id).order_by(_T.task_id).limit(limit)
    return {row.task_id: row.task_status or "" for row in connection.execute(query)}


def apps(connection: Connection, run_id: str) -> AppGraph:
    """Return the graph of apps."""
    c = t.app_edge.c
    query = select(c.from_app, c.to_app, c.edges).where(c.run_id == run_id).order_by(c.from_app, c.to_app)
    edges = tuple((row.from_app, row.to_app, row.edges or 0) for row in connection.execute(query))
    return AppGraph(workflows.apps(connection, run_id), edges, _app_joins(connection, run_id))


def _app_joins(connection: Connection, run_id: str) -> tuple[tuple[str, str, int], ...]:
    j = t.app_join.c
    query = select(j.from_app, j.to_app, j.made, j.awaited).where(j.run_id == run_id).order_by(j.from_app, j.to_app)
    return tuple((row.from_app, row.to_app, max(row.made or 0, row.awaited or 0)) for row in connection.execute(query))


def stages(connection: Connection, run_id: str) -> tuple[Stage, ...]:
    """Return the stages of a run, by depth and app. Reads every task."""
    query = (
        select(_T.task_depth, _T.task_func_name, _T.task_status, func.count())
        .where(_T.run_id == run_id)
        .group_by(_T.task_depth, _T.task_func_name, _T.task_status)
    )
    found: dict[tuple[int, str], Stage] = {}
    for depth, app, status, count in connection.execute(query):
        key = (depth or 0, app or "")
        found.setdefault(key, Stage(*key)).tasks[status or ""] = count
    return tuple(found[key] for key in sorted(found))
