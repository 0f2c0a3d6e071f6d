"""Runs in a SQLite file of the tables, columns and datetimes of Parsl's monitoring, for notebooks that read those.

Times are texts of SQLAlchemy's ``DateTime``, in UTC. What Flow does not measure is null.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from sqlalchemy import select
from sqlalchemy.engine import Connection

from flow_monitor.errors import MonitorError
from flow_monitor.schema import tables as t

TABLES: Final[dict[str, dict[str, str]]] = {
    "workflow": {
        "run_id": "TEXT NOT NULL PRIMARY KEY",
        **dict.fromkeys(("workflow_name", "workflow_version"), "TEXT"),
        **dict.fromkeys(("time_began", "time_completed"), "DATETIME"),
        **dict.fromkeys(("host", "user", "rundir"), "TEXT"),
        **dict.fromkeys(("tasks_failed_count", "tasks_completed_count"), "INTEGER"),
    },
    "task": {
        "task_id": "INTEGER NOT NULL",
        "run_id": "TEXT NOT NULL",
        **dict.fromkeys(("task_depends", "task_func_name", "task_memoize", "task_hashsum", "task_inputs"), "TEXT"),
        **dict.fromkeys(("task_outputs", "task_stdin", "task_stdout", "task_stderr"), "TEXT"),
        **dict.fromkeys(("task_time_invoked", "task_time_returned"), "DATETIME"),
        "task_fail_count": "INTEGER NOT NULL",
        "task_fail_cost": "FLOAT NOT NULL",
    },
    "try": {
        "try_id": "INTEGER NOT NULL",
        "task_id": "INTEGER NOT NULL",
        "run_id": "TEXT NOT NULL",
        **dict.fromkeys(("block_id", "hostname", "task_executor"), "TEXT"),
        **dict.fromkeys(("task_try_time_launched", "task_try_time_running", "task_try_time_returned"), "DATETIME"),
        **dict.fromkeys(("task_fail_history", "task_joins"), "TEXT"),
    },
    "status": {
        "task_id": "INTEGER NOT NULL",
        "task_status_name": "TEXT NOT NULL",
        "timestamp": "DATETIME NOT NULL",
        "run_id": "TEXT NOT NULL",
        "try_id": "INTEGER",
    },
    "node": {
        "id": "INTEGER NOT NULL PRIMARY KEY",
        **dict.fromkeys(("run_id", "hostname", "uid", "block_id"), "TEXT"),
        "cpu_count": "INTEGER",
        "total_memory": "BIGINT",
        "active": "BOOLEAN",
        "worker_count": "INTEGER",
        "python_v": "TEXT",
        **dict.fromkeys(("timestamp", "last_heartbeat"), "DATETIME"),
    },
    "block": {
        **dict.fromkeys(("run_id", "executor_label", "block_id"), "TEXT NOT NULL"),
        "job_id": "TEXT",
        "timestamp": "DATETIME NOT NULL",
        "status": "TEXT",
    },
    "resource": {
        "try_id": "INTEGER NOT NULL",
        "task_id": "INTEGER NOT NULL",
        "run_id": "TEXT NOT NULL",
        "timestamp": "DATETIME NOT NULL",
        "resource_monitoring_interval": "FLOAT",
        "psutil_process_pid": "INTEGER",
        **dict.fromkeys(("psutil_process_memory_percent", "psutil_process_children_count"), "FLOAT"),
        **dict.fromkeys(("psutil_process_time_user", "psutil_process_time_system"), "FLOAT"),
        **dict.fromkeys(("psutil_process_memory_virtual", "psutil_process_memory_resident"), "FLOAT"),
        **dict.fromkeys(("psutil_process_disk_read", "psutil_process_disk_write"), "FLOAT"),
        **dict.fromkeys(("psutil_process_status", "psutil_cpu_num"), "TEXT"),
        **dict.fromkeys(
            ("psutil_process_num_ctx_switches_voluntary", "psutil_process_num_ctx_switches_involuntary"), "FLOAT"
        ),
    },
}
"""Columns of each table with their types, in Parsl's order."""
_KEYS: Final = {
    "task": "task_id, run_id",
    "try": "try_id, task_id, run_id",
    "status": "task_id, task_status_name, timestamp, run_id",
    "block": "run_id, executor_label, block_id, timestamp",
    "resource": "try_id, task_id, run_id, timestamp",
}
_BATCH = 5_000

Row = tuple[Any, ...]


def write_parsl_db(connection: Connection, run_ids: Sequence[str], path: Path) -> dict[str, int]:
    """Write runs into a new SQLite file, which is there when it is whole; return how many rows each table has.

    Args:
        connection: An open monitoring database.
        run_ids: The runs.
        path: The file.

    Raises:
        MonitorError: it is there already, or cannot be written.
    """
    if os.path.lexists(path):
        raise MonitorError(f"{path} is there already: remove it, or name another file")
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with closing(sqlite3.connect(part)) as made:
            for name, columns in TABLES.items():
                made.execute(_definition(name, columns))
            counts = {name: _fill(made, name, _ROWS[name](connection, run_ids)) for name in TABLES}
            made.commit()
        part.rename(path)
    except (OSError, sqlite3.Error) as error:
        raise MonitorError(f"{path} cannot be written: {error}") from error
    finally:
        part.unlink(missing_ok=True)
    return counts


def _definition(name: str, columns: dict[str, str]) -> str:
    lines = [f'"{column}" {kind}' for column, kind in columns.items()]
    lines += [f"PRIMARY KEY ({_KEYS[name]})"] if name in _KEYS else []
    return f'CREATE TABLE "{name}" ({", ".join(lines)})'


def _fill(made: sqlite3.Connection, name: str, rows: Iterator[Row]) -> int:
    places = ", ".join("?" * len(TABLES[name]))
    # Two records that differ in less than a microsecond are one here.
    made.executemany(f'INSERT OR IGNORE INTO "{name}" VALUES ({places})', rows)
    (count,) = made.execute(f'SELECT count(*) FROM "{name}"').fetchone()
    return int(count)


def _time(ns: int | None) -> str | None:
    if not ns:
        return None
    seconds, rest = divmod(ns, 1_000_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S}.{rest // 1000:06d}"


def _of(connection: Connection, table: Any, run_ids: Sequence[str]) -> Iterator[Any]:
    for run_id in run_ids:
        found = connection.execution_options(yield_per=_BATCH).execute(select(table).where(table.c.run_id == run_id))
        for row in found:
            yield run_id, row


def _workflows(connection: Connection, run_ids: Sequence[str]) -> Iterator[Row]:
    for run_id, row in _of(connection, t.workflow, run_ids):
        done = (row.tasks_completed_count or 0) + (row.tasks_memoized_count or 0)
        yield (
            *(run_id, row.workflow_name, None, _time(row.time_began), _time(row.time_completed)),
            *(row.host, row.user, row.rundir, row.tasks_failed_count or 0, done),
        )


def _tasks(connection: Connection, run_ids: Sequence[str]) -> Iterator[Row]:
    for run_id, row in _of(connection, t.task, run_ids):
        yield (
            *(row.task_id, run_id, row.task_depends or "", row.task_func_name, str(bool(row.task_memoize))),
            *(row.task_hashsum, row.task_inputs, row.task_outputs, row.task_stdin, row.task_stdout, row.task_stderr),
            *(_time(row.task_time_invoked), _time(row.task_time_returned)),
            *(row.task_fail_count or 0, row.task_fail_cost or 0.0),
        )


def _tries(connection: Connection, run_ids: Sequence[str]) -> Iterator[Row]:
    joins = {(run_id, row.task_id): row.waits_for for run_id, row in _of(connection, t.joined, run_ids)}
    for run_id, row in _of(connection, t.try_, run_ids):
        yield (
            *(row.try_id, row.task_id, run_id, row.block_id, row.hostname, row.task_executor),
            *map(_time, (row.task_try_time_launched, row.task_try_time_running, row.task_try_time_returned)),
            *(row.task_fail_history, joins.get((run_id, row.task_id))),
        )


def _states(connection: Connection, run_ids: Sequence[str]) -> Iterator[Row]:
    for run_id, row in _of(connection, t.status, run_ids):
        yield row.task_id, row.task_status_name, _time(row.timestamp), run_id, row.try_id


def _nodes(connection: Connection, run_ids: Sequence[str]) -> Iterator[Row]:
    heard = {run_id: row.time_last_event for run_id, row in _of(connection, t.workflow, run_ids)}
    for number, (run_id, row) in enumerate(_of(connection, t.node, run_ids), 1):
        yield (
            *(number, run_id, row.hostname, row.manager, row.block_id, row.cpu_count, row.total_memory),
            *(row.time_left is None, row.worker_count, row.python_version),
            *(_time(row.time_joined), _time(row.time_left or heard.get(run_id))),
        )


def _blocks(connection: Connection, run_ids: Sequence[str]) -> Iterator[Row]:
    for run_id, row in _of(connection, t.block_status, run_ids):
        yield run_id, row.executor_label, row.block_id, row.job_id, _time(row.timestamp), row.status


def _samples(connection: Connection, run_ids: Sequence[str]) -> Iterator[Row]:
    for run_id, row in _of(connection, t.resource, run_ids):
        if row.task_id is None:  # of a whole node
            continue
        children = None if row.psutil_process_count is None else float(max(0, row.psutil_process_count - 1))
        yield (
            *(row.try_id or 0, row.task_id, run_id, _time(row.timestamp), None, row.psutil_process_pid),
            *(row.psutil_process_memory_percent, children),
            *(row.psutil_process_time_user, row.psutil_process_time_system),
            *(None, row.psutil_process_memory_resident, row.psutil_process_disk_read, row.psutil_process_disk_write),
            *(None, None, None, None),
        )


_ROWS: Final[dict[str, Callable[[Connection, Sequence[str]], Iterator[Row]]]] = {
    "workflow": _workflows,
    "task": _tasks,
    "try": _tries,
    "status": _states,
    "node": _nodes,
    "block": _blocks,
    "resource": _samples,
}
