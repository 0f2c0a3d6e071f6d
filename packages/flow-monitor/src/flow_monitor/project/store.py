"""Brings rows into the database: one transaction a batch, with the position they lead to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from sqlalchemy import ColumnElement, Table, bindparam, delete, func, insert, select, update
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.engine import Connection, Dialect, Engine
from sqlalchemy.sql import ClauseElement

from flow_monitor.errors import ProjectionConflict
from flow_monitor.log.reader import Position
from flow_monitor.project.core import Row, Rows
from flow_monitor.project.tally import KEPT_KEYS, AppSums, Tally
from flow_monitor.schema import tables as t

_ORDER: tuple[Table, ...] = (
    t.task,
    t.try_,
    t.status,
    t.block,
    t.block_status,
    t.node,
    t.file,
    t.input_file,
    t.output_file,
    t.app,
    t.app_status,
    t.app_edge,
    t.gap,
)
"""Parents before children: foreign keys are checked at once."""
_FIRST_STAYS = frozenset({"time_requested", "task_time_running", "time_began"})
_HISTORY = frozenset({"status", "block_status", "gap"})


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run's log is in the database."""

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
                _execute(connection, t.workflow, [{"run_id": self._run_id}])
                connection.execute(insert(t.projection), self._new())
                return Progress()
            connection.execute(self._of_run(update(t.projection)).values(finished=0, log_path=self._log_path))
        return Progress(
            Position(found.position, found.header_position), found.events, found.damaged_bytes, bool(found.finished)
        )

    def load_tally(self) -> Tally:
        """Return what the projection remembered of the run when it stopped."""
        with self._engine.begin() as connection:
            return _load_tally(connection, self._run_id)

    def apply(self, rows: Rows, before: Progress, after: Progress, now_ns: int) -> None:
        """Write a batch and the position it leads to.

        Raises:
            ProjectionConflict: somebody else moved the position: nothing was written.
            sqlalchemy.exc.SQLAlchemyError: the database is locked, gone, or broken: nothing was written.
        """
        with self._engine.begin() as connection:
            _execute(connection, t.workflow, [{**rows.workflow, "run_id": self._run_id}])
            for table in _ORDER:
                keyed = rows.keyed.get(table.name)
                if keyed:
                    _execute(connection, table, keyed.values(), self._run_id)
            if rows.resource:
                connection.execute(insert(t.resource), [{"run_id": self._run_id, **row} for row in rows.resource])
            self._advance(connection, before, after, now_ns)

    def heartbeat(self, now_ns: int) -> None:
        """Say that the projection lives though nothing happens."""
        with self._engine.begin() as connection:
            connection.execute(self._of_run(update(t.projection)).values(heartbeat=now_ns))

    def finish(self, *, died: bool) -> None:
        """Say that nothing more will come; ``died`` where the run ended without saying so."""
        with self._engine.begin() as connection:
            connection.execute(self._of_run(update(t.projection)).values(finished=1))
            if died:
                still = update(t.workflow).where(t.workflow.c.run_id == self._run_id, t.workflow.c.ended_how.is_(None))
                connection.execute(still.values(ended_how="died"))

    def clear(self) -> None:
        """Delete everything known of the run."""
        with self._engine.begin() as connection:
            for table in reversed(t.metadata.sorted_tables):
                connection.execute(delete(table).where(table.c.run_id == self._run_id))

    def _advance(self, connection: Connection, before: Progress, after: Progress, now_ns: int) -> None:
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


def _execute(connection: Connection, table: Table, rows: Iterable[Row], run_id: str | None = None) -> None:
    """Insert rows or complete those that are there. The driver is given plain values: that is half of the time."""
    statement = _upsert(table, connection.dialect)
    names = statement.names
    if statement.positional:
        at = None if run_id is None else names.index("run_id")
        values = [[*map(row.get, names)] for row in rows]
        if at is not None:
            for one in values:
                one[at] = run_id
        connection.exec_driver_sql(statement.text, [tuple(one) for one in values])
        return
    blank: Row = dict.fromkeys(names)
    if run_id is not None:
        blank["run_id"] = run_id
    connection.exec_driver_sql(statement.text, [{**blank, **row} for row in rows])


@dataclass(frozen=True, slots=True)
class _Statement:
    """SQL as the driver takes it; ``names`` are the columns in the order of its places, or its parameters."""

    text: str
    names: tuple[str, ...]
    positional: bool


@cache
def _upsert(table: Table, dialect: Dialect) -> _Statement:
    compiled: Any = _upsert_expression(table, dialect.name).compile(dialect=dialect)
    positional = bool(compiled.positional)
    names = compiled.positiontup if positional else compiled.params
    return _Statement(str(compiled), tuple(names), positional)


def _upsert_expression(table: Table, dialect: str) -> ClauseElement:
    make: Callable[[Table], Any] = postgresql_insert if dialect == "postgresql" else sqlite_insert
    statement = make(table).values({column.name: bindparam(column.name) for column in table.columns})
    keys = [column.name for column in table.primary_key]
    others = [column for column in table.columns if not column.primary_key]
    if table.name in _HISTORY or not others:
        done: ClauseElement = statement.on_conflict_do_nothing(index_elements=keys)
        return done
    changes: Mapping[str, ColumnElement[object]] = {
        column.name: func.coalesce(column, statement.excluded[column.name])
        if column.name in _FIRST_STAYS
        else func.coalesce(statement.excluded[column.name], column)
        for column in others
    }
    merged: ClauseElement = statement.on_conflict_do_update(index_elements=keys, set_=changes)
    return merged


def _load_tally(connection: Connection, run_id: str) -> Tally:
    tally = Tally()
    columns: Sequence[Any] = (t.task.c.task_id, t.task.c.task_func_name, t.task.c.task_status, t.task.c.task_depth)
    for task_id, app, state, depth in connection.execute(select(*columns).where(t.task.c.run_id == run_id)):
        tally.put(task_id, app or "", state or "", depth or 0)
    for row in connection.execute(select(t.app_status).where(t.app_status.c.run_id == run_id)):
        tally.counts[row.task_func_name, row.task_status] = row.tasks
    for row in connection.execute(select(t.app_edge).where(t.app_edge.c.run_id == run_id)):
        tally.edges[row.from_app, row.to_app] = row.edges
    for row in connection.execute(select(t.app).where(t.app.c.run_id == run_id)):
        tally.sums[row.task_func_name] = AppSums(
            row.task_kind, row.tries_ended, row.run_time_sum_ns, row.run_time_max_ns, row.cpu_sum_s, row.max_rss_kb
        )
    _load_keys(connection, run_id, tally)
    lost = connection.execute(select(func.sum(t.gap.c.events)).where(t.gap.c.run_id == run_id)).scalar()
    tally.lost = int(lost or 0)
    return tally


def _load_keys(connection: Connection, run_id: str, tally: Tally) -> None:
    """Load the keys of tries that have not ended, and of those that ended last: samples of them may still come."""
    y = t.try_.c
    keyed = select(y.task_id, y.try_id, y.try_key).where(y.run_id == run_id, y.try_key.is_not(None))
    ended = keyed.where(y.task_try_time_returned.is_not(None)).order_by(y.task_try_time_returned.desc())
    live = keyed.where(y.task_try_time_returned.is_(None))
    for task_id, try_id, key in reversed(connection.execute(ended.limit(KEPT_KEYS)).all()):
        tally.remember_key(key if key >= 0 else key + (1 << 64), task_id, try_id)
        tally.forget_key(task_id, try_id)
    for task_id, try_id, key in connection.execute(live):
        tally.remember_key(key if key >= 0 else key + (1 << 64), task_id, try_id)
