"""Runs: their list, one of them, its apps, its gaps."""

from __future__ import annotations

import time
from enum import Enum

from sqlalchemy import Select, func, or_, select
from sqlalchemy.engine import Connection

from flow_monitor.errors import NoSuchRecord
from flow_monitor.queries import rows
from flow_monitor.queries.records import AppSummary, Gap, Page, Workflow
from flow_monitor.schema import tables as t
from flow_monitor.schema.version import has_version


class WorkflowOrder(Enum):
    """Sort orders of a list of runs."""

    BEGAN = "began"
    NAME = "name"
    TASKS = "tasks"
    FAILED = "failed"
    DURATION = "duration"


_W = t.workflow.c
_ORDERS = {
    WorkflowOrder.BEGAN: _W.time_began,
    WorkflowOrder.NAME: func.lower(_W.workflow_name),
    WorkflowOrder.TASKS: _W.tasks_submitted_count,
    WorkflowOrder.FAILED: _W.tasks_failed_count,
    WorkflowOrder.DURATION: func.coalesce(_W.time_completed, _W.time_last_event) - _W.time_began,
}


def _select() -> Select[tuple[object, ...]]:
    progress = t.projection
    return select(t.workflow, progress.c.position, progress.c.finished, progress.c.heartbeat).join(
        progress, progress.c.run_id == _W.run_id, isouter=True
    )


def page(
    connection: Connection,
    *,
    search: str = "",
    order: WorkflowOrder = WorkflowOrder.BEGAN,
    descending: bool = True,
    offset: int = 0,
    limit: int = 50,
) -> Page[Workflow]:
    """Return runs, newest first unless asked otherwise. ``search`` looks in name, id, user and host."""
    query, count = _select(), select(func.count()).select_from(t.workflow)
    if search:
        found = or_(
            *(column.icontains(search, autoescape=True) for column in (_W.workflow_name, _W.run_id, _W.user, _W.host))
        )
        query, count = query.where(found), count.where(found)
    column = _ORDERS[order]
    query = query.order_by(column.desc() if descending else column.asc(), _W.run_id).offset(offset).limit(limit)
    now = time.time_ns()
    items = tuple(rows.workflow(row, now) for row in connection.execute(query))
    return Page(items, offset, limit, connection.execute(count).scalar_one())


def ids(connection: Connection) -> list[str]:
    """Return the ids of all runs, the oldest first."""
    return list(connection.execute(select(_W.run_id).order_by(_W.time_began, _W.run_id)).scalars())


def one(connection: Connection, run_id: str) -> Workflow:
    """Return a run. Raises NoSuchRecord."""
    row = connection.execute(_select().where(_W.run_id == run_id)).one_or_none()
    if row is None:
        raise NoSuchRecord(f"there is no workflow {run_id!r} in this database")
    return rows.workflow(row, time.time_ns())


def revision(connection: Connection, run_id: str) -> int:
    """Return a number that changes when anything of the run does. Raises NoSuchRecord."""
    return one(connection, run_id).revision


def counts_by_state(connection: Connection, run_id: str) -> dict[str, int]:
    """Return the number of tasks in each state that occurs."""
    c = t.app_status.c
    query = select(c.task_status, func.sum(c.tasks)).where(c.run_id == run_id).group_by(c.task_status)
    return {state: int(tasks) for state, tasks in connection.execute(query) if tasks}


def apps(connection: Connection, run_id: str) -> tuple[AppSummary, ...]:
    """Return the apps of a run, most used first."""
    c = t.app_status.c
    states: dict[str, dict[str, int]] = {}
    for name, state, tasks in connection.execute(
        select(c.task_func_name, c.task_status, c.tasks).where(c.run_id == run_id, c.tasks > 0)
    ):
        states.setdefault(name, {})[state] = tasks
    found = [
        AppSummary(
            name=row.task_func_name,
            kind=row.task_kind or "",
            tasks=states.get(row.task_func_name, {}),
            tries=row.tries_ended or 0,
            run_time_sum_s=(row.run_time_sum_ns or 0) / 1e9,
            run_time_max_s=(row.run_time_max_ns or 0) / 1e9,
            cpu_s=row.cpu_sum_s or 0.0,
            max_rss_kb=row.max_rss_kb or 0,
        )
        for row in connection.execute(select(t.app).where(t.app.c.run_id == run_id))
    ]
    return tuple(sorted(found, key=lambda app: (-app.count, app.name)))


def gaps(connection: Connection, run_id: str, limit: int = 100) -> tuple[Gap, ...]:
    """Return the gaps in the events of a run, in order of time."""
    timed = has_version(connection, 5)
    columns = [column for column in t.gap.c if timed or column.name != "time_first"]
    query = select(*columns).where(t.gap.c.run_id == run_id).order_by(t.gap.c.timestamp).limit(limit)
    return tuple(
        Gap(row.timestamp, row.events or 0, row.reason, row.time_first if timed else None)
        for row in connection.execute(query)
    )
