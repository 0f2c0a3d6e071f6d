"""Tasks: pages of them, one with its tries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from sqlalchemy import Table, and_, or_, select
from sqlalchemy.engine import Connection

from flow_monitor.errors import NoSuchRecord
from flow_monitor.queries import graph, listing, rows, traffic, waiting
from flow_monitor.queries.listing import TaskFilter as TaskFilter, TaskOrder as TaskOrder
from flow_monitor.queries.records import FileMove, Page, StatusChange, Task, TaskDetail, TaskFile, TaskSample
from flow_monitor.schema import tables as t
from flow_monitor.schema.version import has_version

_T = t.task.c
_SHOWN_DEPENDENTS = 200  # entries on the page of a task; the rest is a number
# Ids behind the task's own: dependencies are texts without an index, so the search needs an end.
_SEARCHED_DEPENDENTS = 200_000
_PORTION = 500  # ids a statement: older libraries of SQLite take 999 values in one
# Long texts that no list shows: reading them would be most of the work for a page.
_NOT_LISTED = ("task_traceback", "task_hashsum", "task_inputs", "task_outputs")
_LISTED = [column for column in rows.TASK_COLUMNS if column.name not in _NOT_LISTED]


def page(
    connection: Connection,
    run_id: str,
    which: TaskFilter = listing.ALL_TASKS,
    *,
    order: TaskOrder = TaskOrder.ID,
    descending: bool = False,
    offset: int = 0,
    limit: int = 100,
) -> Page[Task]:
    """Return some tasks of a run."""
    found = listing.find(connection, run_id, which, order, descending=descending, offset=offset, limit=limit)
    items: dict[int, Task] = {}
    for start in range(0, len(found.task_ids), _PORTION):
        ids = found.task_ids[start : start + _PORTION]
        query = select(*_LISTED).where(_T.run_id == run_id, _T.task_id.in_(ids))
        items.update((row.task_id, rows.task(row)) for row in connection.execute(query))
    return Page(tuple(items[task_id] for task_id in found.task_ids), offset, limit, found.total)


def one(connection: Connection, run_id: str, task_id: int) -> TaskDetail:
    """Return all that is known of a task. Raises NoSuchRecord."""
    row = None
    # Other numbers are no ids, and the drivers refuse them with errors of their own.
    if 0 <= task_id < 1 << 63:
        row = connection.execute(
            select(*rows.TASK_COLUMNS).where(_T.run_id == run_id, _T.task_id == task_id)
        ).one_or_none()
    if row is None:
        raise NoSuchRecord(f"there is no task {task_id} in workflow {run_id!r}")
    tries = select(t.try_).where(t.try_.c.run_id == run_id, t.try_.c.task_id == task_id).order_by(t.try_.c.try_id)
    dependents = _dependents(connection, run_id, task_id)
    seen = traffic.of_tries(connection, run_id, task_id, task_id)
    task = rows.task(row)
    waits_for = graph.waits(connection, run_id, task_id).get(task_id, ())
    history = _history(connection, run_id, task_id)
    made = tuple(rows.try_(r, seen.get((task_id, r.try_id), traffic.UNKNOWN)) for r in connection.execute(tries))
    why = waiting.of_task(connection, run_id, task, waits_for, history, made[-1].executor if made else "")
    inputs, outputs = (_files(connection, table, run_id, task_id) for table in (t.input_file, t.output_file))
    return TaskDetail(
        task=task,
        parent=row.task_parent,
        waits_for=waits_for,
        dependents=dependents[:_SHOWN_DEPENDENTS],
        dependents_total=len(dependents),
        stdout=row.task_stdout or "",
        stderr=row.task_stderr or "",
        hashsum=row.task_hashsum or "",
        memoize=bool(row.task_memoize),
        fail_cost=row.task_fail_cost or 0.0,
        traceback=row.task_traceback or "",
        tries=made,
        history=history,
        inputs=inputs,
        outputs=outputs,
        waiting=why,
        moving=() if why is None else _moving(connection, run_id, task_id, {"in": inputs, "out": outputs}),
    )


def samples(connection: Connection, run_id: str, task_id: int, limit: int = 5000) -> tuple[TaskSample, ...]:
    """Return the resource samples of a task in order of time; of one with several nodes their sums so far."""
    c = t.resource.c
    query = select(t.resource).where(c.run_id == run_id, c.task_id == task_id).order_by(c.timestamp).limit(limit)
    last: dict[tuple[int | None, str], TaskSample] = {}
    found = []
    for r in connection.execute(query):
        sample = TaskSample(
            time_ns=r.timestamp,
            try_id=r.try_id,
            cpu_percent=r.psutil_process_cpu_percent or 0.0,
            cpu_user_s=r.psutil_process_time_user or 0.0,
            cpu_system_s=r.psutil_process_time_system or 0.0,
            memory=r.psutil_process_memory_resident or 0,
            disk_read=r.psutil_process_disk_read or 0,
            disk_write=r.psutil_process_disk_write or 0,
            processes=r.psutil_process_count or 0,
            net_sent=r.psutil_process_net_sent,
            net_received=r.psutil_process_net_received,
        )
        last[r.try_id, f"{r.hostname}/{r.manager}"] = sample
        others = [one for (try_id, _), one in last.items() if try_id == r.try_id and one is not sample]
        found.append(_sum(sample, others) if others else sample)
    return tuple(found)


def _sum(sample: TaskSample, others: Sequence[TaskSample]) -> TaskSample:
    """Return a sample with what the other nodes of its try said last."""
    for other in others:
        sample = replace(
            sample,
            cpu_percent=sample.cpu_percent + other.cpu_percent,
            cpu_user_s=sample.cpu_user_s + other.cpu_user_s,
            cpu_system_s=sample.cpu_system_s + other.cpu_system_s,
            memory=sample.memory + other.memory,
            disk_read=sample.disk_read + other.disk_read,
            disk_write=sample.disk_write + other.disk_write,
            processes=sample.processes + other.processes,
            net_sent=None if sample.net_sent is None else sample.net_sent + (other.net_sent or 0),
            net_received=None if sample.net_received is None else sample.net_received + (other.net_received or 0),
        )
    return sample


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


def _moving(
    connection: Connection, run_id: str, task_id: int, files: Mapping[str, Sequence[TaskFile]]
) -> tuple[FileMove, ...]:
    """Return the files with a report of progress after which no report of their end came."""
    if not has_version(connection, 6):
        return ()
    c = t.file_progress.c
    found = connection.execute(
        select(t.file_progress).where(c.run_id == run_id, c.task_id == task_id).order_by(c.direction, c.url)
    )
    moves = [FileMove(r.url, r.direction, r.timestamp, r.moved or 0, r.total, r.speed or 0.0) for r in found]
    staged = {(way, file.url): file.time_staged or 0 for way, group in files.items() for file in group}
    return tuple(move for move in moves if staged.get((move.direction, move.url), 0) < move.time_ns)


def _dependents(connection: Connection, run_id: str, task_id: int) -> tuple[int, ...]:
    """Return the tasks that depend on one, looked for among those that were submitted soon after it."""
    text = str(task_id)
    c = _T.task_depends
    found = or_(
        # Four cases, so that 1 is not found in "11,21".
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
