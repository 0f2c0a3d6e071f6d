"""The tables, as they are at the newest version of the schema. Times are int64 nanoseconds UTC, 0 is never used.

All columns but keys may be null: rows grow as events come in. The migrations make the same tables (tested).

The long tables (``task_rows``, ``try_rows``, ``status_rows``, ...) name their run by a small number, ``run_key``: the
text of a run's id in each row would be a third of the database. For each of them the database has a view with
``run_id`` instead (``task``, ``try``, ``status``, ...), made by the migrations: that is what to query by hand.
"""

from __future__ import annotations

from typing import TypeVar

from sqlalchemy import (
    BigInteger,
    BindParameter,
    Column,
    ColumnElement,
    Float,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    select,
    text,
    type_coerce,
)
from sqlalchemy.types import TypeDecorator, TypeEngine

from flow_monitor.schema.bounded_text import LongText, Name

T = TypeVar("T")

metadata = MetaData()


def _run_id() -> Column[str]:
    return Column("run_id", Name, ForeignKey("workflow.run_id", ondelete="CASCADE"), primary_key=True, nullable=False)


class RunKey(TypeDecorator[str]):
    """A run's number in long tables; compared with the run's id, which the database looks up once a statement."""

    impl = Integer
    cache_ok = True

    def bind_expression(self, bindvalue: BindParameter[str]) -> ColumnElement[str]:
        """Return the look-up of the number."""
        same = workflow.c.run_id == type_coerce(bindvalue, Text)
        return type_coerce(select(workflow.c.run_key).where(same).scalar_subquery(), RunKey())


def _run_key(*, checked: bool = True, key: bool = True) -> Column[str]:
    """Return the run's number, called run_id in statements; not ``checked`` where another foreign key does it."""
    to = (ForeignKey("workflow.run_key", ondelete="CASCADE"),) if checked else ()
    return Column("run_key", RunKey, *to, key="run_id", primary_key=key, nullable=False)


def _run_id_of_parent() -> Column[str]:
    """Return a run_id whose workflow is checked by another foreign key: one look-up a row less."""
    return Column("run_id", Name, primary_key=True)


def _columns(kind: TypeEngine[T], *names: str) -> list[Column[T]]:
    return [Column(name, kind) for name in names]


def _of_task() -> ForeignKeyConstraint:
    return ForeignKeyConstraint(["run_id", "task_id"], ["task_rows.run_id", "task_rows.task_id"], ondelete="CASCADE")


_TIME = BigInteger()
_COUNT = BigInteger()
# Indexes begin with these, so that tasks of one app and state stand together: see queries.listing.
_GROUP = ("run_id", "task_func_name", "task_status")

workflow = Table(
    "workflow",
    metadata,
    Column("run_key", Integer, primary_key=True),
    Column("run_id", Name, nullable=False),
    *_columns(Name(), "workflow_name", "flow_version", "python_version", "host", "user", "rundir", "script"),
    *_columns(LongText(), "executors"),
    *_columns(Integer(), "epoch"),
    *_columns(_TIME, "time_began", "time_completed", "time_last_event"),
    *_columns(_COUNT, "tasks_completed_count", "tasks_failed_count", "tasks_memoized_count", "tasks_cancelled_count"),
    *_columns(_COUNT, "tasks_submitted_count", "events_lost_count"),
    Column("ended_how", Name),
    UniqueConstraint("run_id", name="uq_workflow_run_id"),
    Index("ix_workflow_time_began", "time_began"),
)
"""A row a run. ``ended_how``: null while it goes on or nothing is known, ``ended``, or ``died``."""

projection = Table(
    "projection",
    metadata,
    _run_id(),
    Column("log_path", Name),
    *_columns(_COUNT, "position", "header_position", "events", "damaged_bytes"),
    *_columns(_TIME, "heartbeat"),
    Column("finished", Integer),
)
"""Position of each run's projection in its event log; written in the same transactions as the rows."""

task = Table(
    "task_rows",
    metadata,
    _run_key(),
    Column("task_id", BigInteger, primary_key=True, autoincrement=False),
    *_columns(Name(), "task_func_name", "task_kind", "task_label", "task_status", "task_executor"),
    *_columns(LongText(), "task_depends"),
    *_columns(LongText(), "task_inputs", "task_outputs"),
    *_columns(Name(), "task_stdin", "task_stdout", "task_stderr", "task_hashsum"),
    *_columns(SmallInteger(), "task_memoize", "task_from_memo"),
    *_columns(_TIME, "task_time_invoked", "task_time_running", "task_time_returned"),
    *_columns(Integer(), "task_depth", "task_tries", "task_fail_count"),
    Column("task_fail_cost", Float),
    Column("task_parent", BigInteger),
    *_columns(LongText(), "task_error", "task_traceback"),
    Column("task_run_time", _TIME),
    Index("ix_task_group", *_GROUP, "task_id"),
    Index("ix_task_sorted", *_GROUP, "task_tries", "task_run_time", "task_id"),
    Index(
        "ix_task_text", "run_id", "task_id", "task_label", "task_error", "task_func_name", "task_status", "task_tries",
        "task_run_time", sqlite_where=text("task_label IS NOT NULL OR task_error IS NOT NULL"),
    ).ddl_if(dialect="sqlite"),
    sqlite_with_rowid=False,
)  # fmt: skip
"""``task_run_time``: nanoseconds that its tries ran, without the waits between them (before version 5 from the first
start to the end). ``flow_monitor.queries.listing`` reads the indexes: of them pages of any list of tasks are made,
without looking at other tasks. Since version 4."""

try_ = Table(
    "try_rows",
    metadata,
    _run_key(checked=False),
    Column("task_id", BigInteger, primary_key=True, autoincrement=False),
    Column("try_id", Integer, primary_key=True, autoincrement=False),
    *_columns(Name(), "task_executor", "block_id", "hostname", "manager"),
    *_columns(Integer(), "worker", "pid"),
    Column("try_key", BigInteger),
    *_columns(_TIME, "task_try_time_launched", "task_try_time_running", "task_try_time_returned"),
    *_columns(Name(), "task_try_verdict"),
    *_columns(LongText(), "task_fail_history"),
    *_columns(Float(), "cpu_user_s", "cpu_system_s"),
    *_columns(_COUNT, "max_rss_kb", "io_read_blocks", "io_write_blocks"),
    _of_task(),
    # For timelines: the tries of a window of time.
    Index("ix_try_running", "run_id", "task_try_time_running"),
    sqlite_with_rowid=False,
)

status = Table(
    "status_rows",
    metadata,
    _run_key(checked=False),
    Column("task_id", BigInteger, primary_key=True, autoincrement=False),
    Column("timestamp", BigInteger, primary_key=True, autoincrement=False),
    Column("task_status_name", Name, primary_key=True),
    Column("try_id", Integer),
    _of_task(),
    sqlite_with_rowid=False,
)

joined = Table(
    "joined_rows",
    metadata,
    _run_key(checked=False),
    Column("task_id", BigInteger, primary_key=True, autoincrement=False),
    Column("waits_for", LongText),
    _of_task(),
    sqlite_with_rowid=False,
)
"""Tasks that a join task waits for once its body has returned their futures. Since version 3."""

resource = Table(
    "resource_rows",
    metadata,
    Column("resource_id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    _run_key(key=False),
    Column("task_id", BigInteger),
    Column("try_id", Integer),
    Column("timestamp", BigInteger, nullable=False),
    *_columns(Name(), "executor", "block_id", "hostname", "manager"),
    *_columns(Integer(), "psutil_process_pid", "psutil_process_count"),
    *_columns(Float(), "psutil_process_cpu_percent", "psutil_process_time_user", "psutil_process_time_system"),
    *_columns(_COUNT, "psutil_process_memory_resident"),
    *_columns(Float(), "psutil_process_memory_percent"),
    *_columns(_COUNT, "psutil_process_disk_read", "psutil_process_disk_write"),
    *_columns(_COUNT, "psutil_process_net_sent", "psutil_process_net_received"),
    # For the page of a task, and below for sums over a window.
    Index("ix_resource_task", "run_id", "task_id", "timestamp"),
    Index("ix_resource_time", "run_id", "timestamp"),
)
"""Samples; those without a task are of a whole node."""

node = Table(
    "node",
    metadata,
    _run_id(),
    Column("executor", Name, primary_key=True),
    Column("manager", Name, primary_key=True),
    *_columns(Name(), "block_id", "hostname", "python_version"),
    *_columns(Integer(), "pid", "worker_count", "cpu_count"),
    *_columns(_COUNT, "total_memory"),
    *_columns(_TIME, "time_joined", "time_left"),
    Column("lost", SmallInteger),
    Column("reason", Name),
    Column("tries_ended", BigInteger),
)
"""A row a manager; there may be several on one host. ``tries_ended`` is null in rows made before version 2."""

block = Table(
    "block",
    metadata,
    _run_id(),
    Column("executor_label", Name, primary_key=True),
    Column("block_id", Name, primary_key=True),
    *_columns(Name(), "job_id", "status", "reason"),
    *_columns(_TIME, "time_requested", "time_changed"),
)

block_status = Table(
    "block_status",
    metadata,
    _run_id_of_parent(),
    Column("executor_label", Name, primary_key=True),
    Column("block_id", Name, primary_key=True),
    Column("timestamp", BigInteger, primary_key=True, autoincrement=False),
    Column("status", Name, primary_key=True),
    *_columns(Name(), "job_id", "reason"),
    ForeignKeyConstraint(
        ["run_id", "executor_label", "block_id"],
        ["block.run_id", "block.executor_label", "block.block_id"],
        ondelete="CASCADE",
    ),
)

file = Table(
    "file_rows",
    metadata,
    _run_key(),
    Column("url", Name, primary_key=True),
    Column("size", BigInteger),
    Column("digest", Name),
    sqlite_with_rowid=False,
)


def _task_file(name: str) -> Table:
    return Table(
        f"{name}_rows",
        metadata,
        _run_key(checked=False),
        Column("task_id", BigInteger, primary_key=True, autoincrement=False),
        Column("url", Name, primary_key=True),
        *_columns(Name(), "local_path", "error"),
        *_columns(_TIME, "time_staged"),
        _of_task(),
        ForeignKeyConstraint(["run_id", "url"], ["file_rows.run_id", "file_rows.url"], ondelete="CASCADE"),
        Index(f"ix_{name}_url", "run_id", "url"),
        sqlite_with_rowid=False,
    )


input_file = _task_file("input_file")
output_file = _task_file("output_file")

app = Table(
    "app",
    metadata,
    _run_id(),
    Column("task_func_name", Name, primary_key=True),
    Column("task_kind", Name),
    *_columns(_COUNT, "tries_ended", "run_time_sum_ns", "run_time_max_ns"),
    Column("cpu_sum_s", Float),
    Column("max_rss_kb", BigInteger),
)
"""Sums a page would otherwise make from a million rows."""

app_status = Table(
    "app_status",
    metadata,
    _run_id(),
    Column("task_func_name", Name, primary_key=True),
    Column("task_status", Name, primary_key=True),
    *_columns(_COUNT, "tasks"),
)

app_activity = Table(
    "app_activity",
    metadata,
    _run_id(),
    Column("task_func_name", Name, primary_key=True),
    Column("bin_begin", BigInteger, primary_key=True, autoincrement=False),
    *_columns(_COUNT, "bin_width", "started", "ended", "start_offsets", "end_offsets"),
)
"""Tries of an app that began and ended in a bin of time, and the sums of how far (ns) from the bin's begin. All bins of
a run are of one width. Since version 2."""

app_edge = Table(
    "app_edge",
    metadata,
    _run_id(),
    Column("from_app", Name, primary_key=True),
    Column("to_app", Name, primary_key=True),
    *_columns(_COUNT, "edges"),
)

app_join = Table(
    "app_join",
    metadata,
    _run_id(),
    Column("from_app", Name, primary_key=True),
    Column("to_app", Name, primary_key=True),
    *_columns(_COUNT, "made", "awaited"),
)
"""Tasks of ``to_app`` that join tasks of ``from_app`` made or wait for. Since version 3."""

usage_sums = Table(
    "usage_sums",
    metadata,
    _run_id(),
    Column("grouping", Name, primary_key=True),
    Column("name", Name, primary_key=True),
    Column("bin_begin", BigInteger, primary_key=True, autoincrement=False),
    *_columns(BigInteger(), "bin_width"),
    *_columns(Float(), "cores", "memory", "processes", "cores_offset", "memory_offset", "processes_offset"),
)
"""Changes of the use of resources of an app's, a node's or a block's tasks in a bin of time, and the sums of
each change times how far (ns) from the bin's begin. All bins of a run and a grouping are as wide. Since version 5."""

file_progress = Table(
    "file_progress",
    metadata,
    _run_id(),
    Column("task_id", BigInteger, primary_key=True, autoincrement=False),
    Column("url", Name, primary_key=True),
    Column("direction", Name, primary_key=True),
    *_columns(BigInteger(), "timestamp", "moved", "total"),
    Column("speed", Float),
)
"""Last reported progress of files that move for some seconds: bytes, and bytes a second. Since version 6."""

node_hold = Table(
    "node_hold",
    metadata,
    _run_id(),
    Column("executor", Name, primary_key=True),
    Column("hostname", Name, primary_key=True),
    Column("reason", Name),
    *_columns(_TIME, "time_held", "time_freed"),
)
"""Nodes that got no tasks of an executor: the last time, and its end, null while it lasts. Since version 7."""

gap = Table(
    "gap",
    metadata,
    _run_id(),
    Column("timestamp", BigInteger, primary_key=True, autoincrement=False),
    Column("reason", Name, primary_key=True),
    *_columns(_COUNT, "events"),
    *_columns(_TIME, "time_first"),
)
"""Events that are known to be missing: ``timestamp`` is when the last of them was, ``time_first`` the first."""
