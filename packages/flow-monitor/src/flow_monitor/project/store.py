"""The writer of rows to the database: one transaction a batch, with the position in the log that the batch leads to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain
from typing import Any

from sqlalchemy import Table, delete, func, insert, select, update
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import DBAPIError

from flow_monitor.errors import ProjectionConflict
from flow_monitor.log.reader import Position
from flow_monitor.project.projection_core import (
    RESOURCE_COLUMNS,
    STATUS_COLUMNS,
    TASK_COLUMNS,
    TRY_COLUMNS,
    Row,
    Rows,
)
from flow_monitor.project.running_totals import KEPT_KEYS, AppSums, RunningTotals
from flow_monitor.project.usage import GROUPINGS, UseOverTime
from flow_monitor.schema import tables as t

_ORDER: tuple[Table, ...] = (
    t.block,
    t.block_status,
    t.node,
    t.node_hold,
    t.file,
    t.input_file,
    t.output_file,
    t.app,
    t.app_status,
    t.app_activity,
    t.usage_sums,
    t.app_edge,
    t.app_join,
    t.joined,
    t.file_progress,
    t.gap,
)
"""Parents before children: foreign keys are checked at once."""
# Of these the first value stays: a restarted projection or a second try would move them on.
_FIRST_STAYS = frozenset({"time_requested", "task_time_running", "time_began"})
# Rows of a history never change: one that is there already is the same one, folded again.
_HISTORY = frozenset({"status_rows", "block_status", "gap"})
# 16 rows of the widest table (26 columns and the run's number, which is in the text) are 416 values.
_TOGETHER = 16
"""Rows of one statement. Older libraries of SQLite take 999 values in one."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Progress of a run's projection: position in the log, events and damaged bytes until there."""

    position: Position = Position()  # noqa: RUF009 - frozen
    events: int = 0
    damaged: int = 0
    finished: bool = False


class RunStore:
    """The rows of one run in a database. Used by one thread; every method is one transaction."""

    def __init__(self, engine: Engine, run_id: str, log_path: str) -> None:
        self._engine = engine
        self._run_id = run_id
        self._log_path = log_path

    def resume(self) -> Progress:
        """Return how far the run is in the database; make its rows where there are none.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: the database is locked, gone, or broken.
        """
        with self._engine.begin() as connection:
            found = connection.execute(select(t.projection).where(t.projection.c.run_id == self._run_id)).one_or_none()
            if found is None:
                _put_rows(connection, t.workflow, [{"run_id": self._run_id}])
                connection.execute(insert(t.projection), self._new())
                return Progress()
            # A run that is taken up again is not finished, and its directory may have another path by now.
            connection.execute(self._of_run(update(t.projection)).values(finished=0, log_path=self._log_path))
        return Progress(
            Position(found.position, found.header_position), found.events, found.damaged_bytes, bool(found.finished)
        )

    def load_tally(self) -> RunningTotals:
        """Return the running totals of the run, loaded from the database."""
        with self._engine.begin() as connection:
            return _load_tally(connection, self._run_id)

    def apply(self, rows: Rows, before: Progress, after: Progress, now_ns: int) -> None:
        """Write a batch and the position it leads to.

        Raises:
            ProjectionConflict: somebody else moved the position: nothing was written.
            sqlalchemy.exc.SQLAlchemyError: the database is locked, gone, or broken: nothing was written.
        """
        with self._engine.begin() as connection:
            key = self._key(connection)
            _put_rows(connection, t.workflow, [{**rows.workflow, "run_id": self._run_id}])
            # Tasks before tries, tries before statuses and samples: the same order as of _ORDER, for foreign keys.
            _put_lines(connection, t.task, TASK_COLUMNS, key, list(rows.tasks.values()))
            _put_lines(connection, t.try_, TRY_COLUMNS, key, list(rows.tries.values()))
            _put_lines(connection, t.status, STATUS_COLUMNS, key, rows.statuses)
            _put_lines(connection, t.resource, RESOURCE_COLUMNS, key, rows.resources)
            # The width of the bins has doubled: the old bins would overlap the new ones.
            if rows.activity_anew:
                connection.execute(delete(t.app_activity).where(t.app_activity.c.run_id == self._run_id))
            u = t.usage_sums.c
            if rows.usage_anew:
                replaced = delete(t.usage_sums).where(u.run_id == self._run_id, u.grouping.in_(rows.usage_anew))
                connection.execute(replaced)
            for table in _ORDER:
                keyed = rows.keyed.get(_view_name(table))
                if keyed:
                    run: Row = {"run_key": key} if "run_key" in _names(table) else {"run_id": self._run_id}
                    _put_rows(connection, table, [{**row, **run} for row in keyed.values()])
            # In the same transaction as the rows, so that after a kill the next process goes on exactly behind what is
            # there.
            self._advance(connection, before, after, now_ns)

    def heartbeat(self, now_ns: int) -> None:
        """Write the time at which the projection was alive, while the log has no new events."""
        with self._engine.begin() as connection:
            connection.execute(self._of_run(update(t.projection)).values(heartbeat=now_ns))

    def finish(self, *, died: bool) -> None:
        """Mark the run as complete in the database; ``died`` where its log has no end of the run."""
        with self._engine.begin() as connection:
            connection.execute(self._of_run(update(t.projection)).values(finished=1))
            # Only where the log has no end of the run: a run that said so did not die.
            if died:
                still = update(t.workflow).where(t.workflow.c.run_id == self._run_id, t.workflow.c.ended_how.is_(None))
                connection.execute(still.values(ended_how="died"))
            w, n = t.workflow.c, t.node.c
            ended = connection.execute(
                select(w.time_completed, w.time_last_event).where(w.run_id == self._run_id, w.ended_how.is_not(None))
            ).one_or_none()
            if ended is not None:  # nodes send no event when the run has ended
                here = update(t.node).where(n.run_id == self._run_id, n.time_left.is_(None))
                connection.execute(here.values(time_left=ended[0] or ended[1], reason="the run ended"))

    def clear(self) -> None:
        """Delete everything known of the run."""
        with self._engine.begin() as connection:
            # Children before parents: foreign keys are checked at once.
            for table in reversed(t.metadata.sorted_tables):
                connection.execute(delete(table).where(table.c.run_id == self._run_id))

    def _key(self, connection: Connection) -> int:
        """Return the run's number in long tables."""
        w = t.workflow.c
        return int(connection.execute(select(w.run_key).where(w.run_id == self._run_id)).scalar_one())

    def _advance(self, connection: Connection, before: Progress, after: Progress, now_ns: int) -> None:
        # The position of before is the lock: of two processes that project one run only one finds it unchanged.
        moved = connection.execute(
            self._of_run(update(t.projection))
            .where(t.projection.c.position == before.position.offset)
            .values(
                position=after.position.offset,
                header_position=after.position.header,
                events=after.events,
                damaged_bytes=after.damaged,
                heartbeat=now_ns,
            )
        )
        if moved.rowcount != 1:
            raise ProjectionConflict(
                f"run {self._run_id} is being written into the database by another process: this one stops"
            )

    def _of_run(self, statement: Any) -> Any:  # Update of any table; its own generic type is not exported
        return statement.where(t.projection.c.run_id == self._run_id)

    def _new(self) -> Row:
        zero = dict.fromkeys(("position", "header_position", "events", "damaged_bytes", "finished"), 0)
        return {"run_id": self._run_id, "log_path": self._log_path, **zero}


def _put_lines(
    connection: Connection, table: Table, names: tuple[str, ...], key: int, lines: Sequence[Sequence[object]]
) -> None:
    """Insert rows of a long table, as sequences, or complete those that are there."""
    # The run's number is an int of ours and stands in the text: one value less to bind for each row.
    said, fixed, mark = ("run_key", *names), (str(int(key)),), _mark(connection)
    whole = 0
    if connection.dialect.name == "sqlite":  # what Python does for a statement costs as much as a short row
        whole = len(lines) - len(lines) % _TOGETHER
        flat = [list(chain.from_iterable(lines[at : at + _TOGETHER])) for at in range(0, whole, _TOGETHER)]
        _run_many(connection, _upsert(table, said, fixed, mark, _TOGETHER), flat)
    if whole < len(lines):
        _run_many(connection, _upsert(table, said, fixed, mark), lines[whole:])


def _put_rows(connection: Connection, table: Table, rows: Sequence[Row]) -> None:
    """Insert rows or complete those that are there."""
    names = tuple(name for name in _names(table) if table is not t.workflow or name != "run_key")
    _run_many(connection, _upsert(table, names, (), _mark(connection)), [tuple(map(row.get, names)) for row in rows])


def _run_many(connection: Connection, statement: str, lines: Sequence[Sequence[object]]) -> None:
    """Give the driver plain SQL and plain values: what SQLAlchemy would do with each takes as long as the rest."""
    cursor = connection.connection.cursor()
    try:
        cursor.executemany(statement, lines)
    except connection.dialect.dbapi.Error as error:  # type: ignore[union-attr] # every engine of ours has a driver
        # The driver was called past SQLAlchemy, but callers tell outages from faults by SQLAlchemy's classes.
        raise _meant(connection, statement, error) from error
    finally:
        cursor.close()


def _meant(connection: Connection, statement: str, error: Exception) -> BaseException:
    """Return the driver's error as SQLAlchemy would raise it."""
    driver: Any = connection.dialect.dbapi
    gone = connection.dialect.is_disconnect(error, None, None)  # type: ignore[arg-type] # neither is looked at by ours
    return DBAPIError.instance(
        statement, None, error, driver.Error, connection_invalidated=gone, dialect=connection.dialect
    )


def _mark(connection: Connection) -> str:
    return "?" if connection.dialect.name == "sqlite" else "%s"


def _view_name(table: Table) -> str:
    return table.name.removesuffix("_rows")


@cache
def _names(table: Table) -> tuple[str, ...]:
    return tuple(column.name for column in table.columns)


@cache
def _upsert(table: Table, names: tuple[str, ...], fixed: tuple[str, ...], mark: str, rows: int = 1) -> str:
    """Return SQL that both databases take, for some rows: their first values are fixed, the others are given."""
    values = ", ".join([*fixed, *[mark] * (len(names) - len(fixed))])
    columns = ", ".join(f'"{name}"' for name in names)
    said = f'INSERT INTO "{table.name}" ({columns}) VALUES {", ".join([f"({values})"] * rows)}'
    # Samples have no natural key, and the position makes sure that none is written twice.
    if table is t.resource:
        return said
    keys = ["run_id"] if table is t.workflow else [column.name for column in table.primary_key]
    others = [name for name in names if name not in keys]
    conflict = f"{said} ON CONFLICT ({', '.join(keys)}) DO"
    if table.name in _HISTORY or not others:
        return f"{conflict} NOTHING"
    return f"{conflict} UPDATE SET {', '.join(_change(table.name, name) for name in others)}"


def _change(table: str, name: str) -> str:
    return f'"{name}" = {_merged(table, name)}'


def _merged(table: str, name: str) -> str:
    old, new = f'"{table}"."{name}"', f'excluded."{name}"'
    # coalesce: a row of a batch is partial, so NULL means "not known here" and never erases a value.
    first, second = (old, new) if name in _FIRST_STAYS else (new, old)
    return f"coalesce({first}, {second})"


def _load_tally(connection: Connection, run_id: str) -> RunningTotals:
    tally = RunningTotals()
    columns: Sequence[Any] = (t.task.c.task_id, t.task.c.task_func_name, t.task.c.task_status, t.task.c.task_depth)
    for task_id, app, state, depth in connection.execute(select(*columns).where(t.task.c.run_id == run_id)):
        tally.put(task_id, app or "", state or "", depth or 0)
    for row in connection.execute(select(t.app_status).where(t.app_status.c.run_id == run_id)):
        tally.count(row.task_func_name, row.task_status, row.tasks)
    for row in connection.execute(select(t.app_edge).where(t.app_edge.c.run_id == run_id)):
        tally.edges[row.from_app, row.to_app] = row.edges
    for row in connection.execute(select(t.app_join).where(t.app_join.c.run_id == run_id)):
        tally.joins[row.from_app, row.to_app] = [row.made, row.awaited]
    for row in connection.execute(select(t.app).where(t.app.c.run_id == run_id)):
        tally.sums[row.task_func_name] = AppSums(
            row.task_kind, row.tries_ended, row.run_time_sum_ns, row.run_time_max_ns, row.cpu_sum_s, row.max_rss_kb
        )
    for row in connection.execute(select(t.app_activity).where(t.app_activity.c.run_id == run_id)):
        tally.activity.width = row.bin_width
        tally.activity.bins[row.task_func_name, row.bin_begin] = [
            row.started, row.ended, row.start_offsets, row.end_offsets,
        ]  # fmt: skip
    _load_usage(connection, run_id, tally)
    for row in connection.execute(select(t.node).where(t.node.c.run_id == run_id)):
        tally.managers[row.executor, row.manager] = row.tries_ended or 0
    _load_keys(connection, run_id, tally)
    lost = connection.execute(select(func.sum(t.gap.c.events)).where(t.gap.c.run_id == run_id)).scalar()
    tally.lost = int(lost or 0)
    return tally


def _load_usage(connection: Connection, run_id: str, tally: RunningTotals) -> None:
    """Load the sums of what tasks use, and the state of the tries that have not ended."""
    by_grouping = dict(zip(GROUPINGS, tally.usage.series, strict=True))
    for row in connection.execute(select(t.usage_sums).where(t.usage_sums.c.run_id == run_id)):
        series = by_grouping[row.grouping]
        series.width = row.bin_width
        series.bins[row.name, row.bin_begin] = [
            row.cores, row.memory, row.processes, row.cores_offset, row.memory_offset, row.processes_offset,
        ]  # fmt: skip
    y, r, task = t.try_.c, t.resource.c, t.task.c
    live = select(y.task_id, y.try_id, y.task_try_time_running, y.task_executor, y.block_id, y.hostname)
    unended = {
        (row.task_id, row.try_id): row
        for row in connection.execute(live.where(y.run_id == run_id, y.task_try_time_returned.is_(None)))
    }
    for key, row in unended.items():
        # Grouped as the projection core does it: app, node, executor/block.
        if row.task_try_time_running:
            groups = (tally.app(row.task_id), row.hostname or "", f"{row.task_executor or ''}/{row.block_id or ''}")
            tally.usage.started(key, row.task_try_time_running, groups)
    theirs = select(y.task_id).where(y.run_id == run_id, y.task_try_time_returned.is_(None))
    samples = select(t.resource).where(r.run_id == run_id, r.task_id.in_(theirs)).order_by(r.task_id, r.timestamp)
    for row in connection.execute(samples):
        if (row.task_id, row.try_id) in unended:
            _take_sample(tally.usage, row, tally.app(row.task_id))
    tally.usage.waiting.clear()  # what samples add is in the sums
    ran = select(task.task_id, task.task_run_time).where(
        task.run_id == run_id, task.task_run_time.is_not(None), task.task_time_returned.is_(None)
    )
    tally.ran.update((row.task_id, row.task_run_time) for row in connection.execute(ran))


def _take_sample(usage: UseOverTime, row: Any, app: str) -> None:
    """Take a row of a sample of a task of some app."""
    groups = (app, row.hostname or "", f"{row.executor or ''}/{row.block_id or ''}")
    cpu_s = (row.psutil_process_time_user or 0.0) + (row.psutil_process_time_system or 0.0)
    memory, processes = row.psutil_process_memory_resident or 0, row.psutil_process_count or 0
    usage.sampled((row.task_id, row.try_id), row.timestamp, groups, cpu_s, memory, processes)


def _load_keys(connection: Connection, run_id: str, tally: RunningTotals) -> None:
    """Load the keys of tries that have not ended, and of those that ended last: samples of them may still come."""
    y = t.try_.c
    running = y.task_try_time_running.is_not(None) & y.task_try_time_returned.is_(None)
    tally.started.update(
        (row.task_id, row.try_id)
        for row in connection.execute(select(y.task_id, y.try_id).where(y.run_id == run_id, running))
    )
    keyed = select(y.task_id, y.try_id, y.try_key).where(y.run_id == run_id, y.try_key.is_not(None))
    ended = keyed.where(y.task_try_time_returned.is_not(None)).order_by(y.task_try_time_returned.desc())
    live = keyed.where(y.task_try_time_returned.is_(None))
    # Oldest first, since forget_key drops the oldest when KEPT_KEYS are kept.
    for task_id, try_id, key in reversed(connection.execute(ended.limit(KEPT_KEYS)).all()):
        tally.remember_key(key if key >= 0 else key + (1 << 64), task_id, try_id)
        tally.forget_key(task_id, try_id)
    for task_id, try_id, key in connection.execute(live):
        tally.remember_key(key if key >= 0 else key + (1 << 64), task_id, try_id)
