"""Tasks: pages of them, one with its tries."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from sqlalchemy import ColumnElement, Table, and_, func, or_, select
from sqlalchemy.engine import Connection

from flow_monitor.errors import NoSuchRecord
from flow_monitor.queries import graph, rows
from flow_monitor.queries.records import Page, StatusChange, Task, TaskDetail, TaskFile, TaskSample
from flow_monitor.schema import tables as t

_T = t.task.c
_SHOWN_DEPENDENTS = 200
_SEARCHED_DEPENDENTS = 200_000


class TaskOrder(Enum):
    """What a list of tasks is sorted by."""

    ID = "id"
    APP = "app"
    STATUS = "status"
    INVOKED = "invoked"
    RUN_TIME = "run_time"
    TRIES = "tries"


_ORDERS: dict[TaskOrder, ColumnElement[object]] = {
    TaskOrder.ID: _T.task_id,
    TaskOrder.APP: _T.task_func_name,
    TaskOrder.STATUS: _T.task_status,
    TaskOrder.INVOKED: _T.task_id,  # tasks are numbered as they are invoked
    TaskOrder.RUN_TIME: _T.task_time_returned - _T.task_time_running,
    TaskOrder.TRIES: _T.task_tries,
}


@dataclass(frozen=True, slots=True)
class TaskFilter:
    """Which tasks to list; empty means all. ``search``: a task id, or text in label or error."""

    app: str = ""
    states: tuple[str, ...] = ()
    search: str = ""


def page(
    connection: Connection,
    run_id: str,
    which: TaskFilter = TaskFilter(),
    *,
    order: TaskOrder = TaskOrder.ID,
    descending: bool = False,
    offset: int = 0,
    limit: int = 100,
) -> Page[Task]:
    """Return some tasks of a run."""
    where = _where(run_id, which, like="LIKE" if connection.dialect.name == "sqlite" else "ILIKE")
    column = _ORDERS[order]
    columns = [c for c in t.task.c if c.name not in ("task_traceback", "task_hashsum", "task_inputs", "task_outputs")]
    ordered = [column.desc() if descending else column.asc()]
    if order not in (TaskOrder.ID, TaskOrder.INVOKED):
        ordered.append(_T.task_id.asc())
    query = select(*columns).where(where).order_by(*ordered).offset(offset).limit(limit)
    items = tuple(rows.task(row) for row in connection.execute(query))
    return Page(items, offset, limit, _count(connection, run_id, which, where))


def _where(run_id: str, which: TaskFilter, like: str) -> ColumnElement[bool]:
    conditions: list[ColumnElement[bool]] = [_T.run_id == run_id]
    if which.app:
        conditions.append(_T.task_func_name == which.app)
    if which.states:
        conditions.append(_T.task_status.in_(which.states))
    if which.search:
        text = which.search.strip()
        found = [_has(_T.task_label, text, like), _has(_T.task_error, text, like)]
        if text.isdecimal() and len(text) < 19:
            conditions.append(_T.task_id == int(text))
        else:
            conditions.append(or_(*found))
    return and_(*conditions)


def _has(column: ColumnElement[str | None], text: str, like: str) -> ColumnElement[bool]:
    """Look for text, small or capital: SQLite's LIKE does not tell them apart, PostgreSQL has ILIKE for it.

    ``icontains`` would make small letters of every row first: half of the time on a million rows.
    """
    escaped = text.replace("/", "//").replace("%", "/%").replace("_", "/_")
    pattern = f"%{escaped}%"
    return column.like(pattern, escape="/") if like == "LIKE" else column.ilike(pattern, escape="/")


def _count(connection: Connection, run_id: str, which: TaskFilter, where: ColumnElement[bool]) -> int:
    """Return how many tasks there are: from the sums unless text is searched."""
    if which.search:
        return connection.execute(select(func.count()).select_from(t.task).where(where)).scalar_one()
    c = t.app_status.c
    query = select(func.sum(c.tasks)).where(c.run_id == run_id)
    if which.app:
        query = query.where(c.task_func_name == which.app)
    if which.states:
        query = query.where(c.task_status.in_(which.states))
    return int(connection.execute(query).scalar() or 0)


def one(connection: Connection, run_id: str, task_id: int) -> TaskDetail:
    """Return all that is known of a task. Raises NoSuchRecord."""
    row = None
    if 0 <= task_id < 1 << 63:
        row = connection.execute(select(t.task).where(_T.run_id == run_id, _T.task_id == task_id)).one_or_none()
    if row is None:
        raise NoSuchRecord(f"there is no task {task_id} in workflow {run_id!r}")
    tries = select(t.try_).where(t.try_.c.run_id == run_id, t.try_.c.task_id == task_id).order_by(t.try_.c.try_id)
    dependents = _dependents(connection, run_id, task_id)
    return TaskDetail(
        task=rows.task(row),
        parent=row.task_parent,
        waits_for=graph.waits(connection, run_id, task_id).get(task_id, ()),
        dependents=dependents[:_SHOWN_DEPENDENTS],
        dependents_total=len(dependents),
        stdout=row.task_stdout or "",
        stderr=row.task_stderr or "",
        hashsum=row.task_hashsum or "",
        memoize=bool(row.task_memoize),
        fail_cost=row.task_fail_cost or 0.0,
        traceback=row.task_traceback or "",
        tries=tuple(rows.try_(r) for r in connection.execute(tries)),
        history=_history(connection, run_id, task_id),
        inputs=_files(connection, t.input_file, run_id, task_id),
        outputs=_files(connection, t.output_file, run_id, task_id),
    )


def samples(connection: Connection, run_id: str, task_id: int, limit: int = 5000) -> tuple[TaskSample, ...]:
    """Return the resource samples of a task in order of time."""
    c = t.resource.c
    query = select(t.resource).where(c.run_id == run_id, c.task_id == task_id).order_by(c.timestamp).limit(limit)
    return tuple(
        TaskSample(
            time_ns=r.timestamp,
            try_id=r.try_id,
            cpu_percent=r.psutil_process_cpu_percent or 0.0,
            cpu_user_s=r.psutil_process_time_user or 0.0,
            cpu_system_s=r.psutil_process_time_system or 0.0,
            memory=r.psutil_process_memory_resident or 0,
            disk_read=r.psutil_process_disk_read or 0,
            disk_write=r.psutil_process_disk_write or 0,
            processes=r.psutil_process_count or 0,
        )
        for r in connection.execute(query)
    )


def _history(connection: Connection, run_id: str, task_id: int) -> tuple[StatusChange, ...]:
    c = t.status.c
    query = select(t.status).where(c.run_id == run_id, c.task_id == task_id).order_by(c.timestamp)
    return tuple(StatusChange(row.timestamp, row.task_status_name, row.try_id) for row in connection.execute(query))


def _files(connection: Connection, table: Table, run_id: str, task_id: int) -> tuple[TaskFile, ...]:
    same = and_(t.file.c.run_id == table.c.run_id, t.file.c.url == table.c.url)
    query = (
        select(table, t.file.c.size, t.file.c.digest)
        .join(t.file, same)
        .where(table.c.run_id == run_id, table.c.task_id == task_id)
        .order_by(table.c.url)
    )
    return tuple(
        TaskFile(r.url, r.local_path or "", r.size, r.digest or "", r.error or "", r.time_staged)
        for r in connection.execute(query)
    )


def _dependents(connection: Connection, run_id: str, task_id: int) -> tuple[int, ...]:
    """Return the tasks that depend on one, looked for among those that were submitted soon after it."""
    text = str(task_id)
    c = _T.task_depends
    found = or_(
        c == text,
        c.like(f"{text},%"),
        c.like(f"%,{text}"),
        c.like(f"%,{text},%"),
    )
    query = (
        select(_T.task_id)
        .where(_T.run_id == run_id, _T.task_id > task_id, _T.task_id <= task_id + _SEARCHED_DEPENDENTS, found)
        .order_by(_T.task_id)
    )
    return tuple(row.task_id for row in connection.execute(query))
