"""Which tasks a list shows, in what order: found in indexes, so that no page of a million tasks reads them all.

In the indexes the tasks of one app, in one state, with one number of tries, stand together in every order that lists
have. Such groups are few and known from the sums that pages show; a list is those that its filter leaves, merged by the
database, which reads no more of each than it passes over. Text is looked for in an index of the tasks that have any.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from sqlalchemy import ColumnElement, Select, UnaryExpression, func, or_, select, union_all
from sqlalchemy.engine import Connection
from sqlalchemy.sql.operators import custom_op

from flow_monitor.schema import tables as t
from flow_monitor.schema.version import HEAD, version_of

_T = t.task.c
_MOST_GROUPS = 100
"""Groups that are merged; where there are more, an index is read to its end."""


class TaskOrder(Enum):
    """What a list of tasks is sorted by; tasks that are alike in it by their ids.

    A task of which the run time or the number of tries is not known comes before all others, or after them on the way
    down.
    """

    ID = "id"
    APP = "app"
    STATUS = "status"
    INVOKED = "invoked"
    RUN_TIME = "run_time"
    TRIES = "tries"


@dataclass(frozen=True, slots=True)
class TaskFilter:
    """Which tasks to list; empty means all. ``search``: a task id, or text in label or error."""

    app: str = ""
    states: tuple[str, ...] = ()
    search: str = ""


ALL_TASKS = TaskFilter()

_ORDERS: dict[TaskOrder, tuple[ColumnElement[Any], ...]] = {
    TaskOrder.ID: (_T.task_id,),
    TaskOrder.APP: (_T.task_func_name, _T.task_id),
    TaskOrder.STATUS: (_T.task_status, _T.task_id),
    TaskOrder.INVOKED: (_T.task_id,),  # tasks are numbered as they are invoked
    TaskOrder.RUN_TIME: (_T.task_run_time, _T.task_id),
    TaskOrder.TRIES: (_T.task_tries, _T.task_run_time, _T.task_id),
}
_BY_TRIES = (TaskOrder.RUN_TIME, TaskOrder.TRIES)
_WITHOUT_INDEX: dict[ColumnElement[Any], ColumnElement[Any]] = {
    _T.task_run_time: _T.task_time_returned - _T.task_time_running
}

_Group = tuple[ColumnElement[bool], ...]
_UNKNOWN: _Group = (_T.task_func_name.is_(None), _T.task_status.is_(None))
"""Tasks of which nothing but their ids is known: what told more is in a gap. They are in no sums."""


@dataclass(frozen=True, slots=True)
class Listing:
    """A part of a list: ids of its tasks in their order, and how many tasks the whole has."""

    task_ids: tuple[int, ...]
    total: int


def find(
    connection: Connection,
    run_id: str,
    which: TaskFilter,
    order: TaskOrder,
    *,
    descending: bool,
    offset: int,
    limit: int,
) -> Listing:
    """Return the tasks of a part of a list."""
    indexed = version_of(connection) == HEAD
    keys = _ORDERS[order] if indexed else tuple(_WITHOUT_INDEX.get(key, key) for key in _ORDERS[order])
    if which.search:
        found = _search(connection, run_id, which)
        total = connection.execute(select(func.count()).select_from(found.subquery())).scalar_one()
        query = found.order_by(*_sorted(connection, [_by_value(connection, key) for key in keys], descending))
        return Listing(_ids(connection, query, offset, limit), total)
    total = _count(connection, run_id, which)
    groups = _groups(connection, run_id, which, by_tries=order in _BY_TRIES) if indexed else None
    if groups is None:
        query = (
            select(_T.task_id).where(*_conditions(_T, run_id, which)).order_by(*_sorted(connection, keys, descending))
        )
        return Listing(_ids(connection, query, offset, limit), total)
    if not groups:
        return Listing((), total)
    if offset <= total // 2 or _UNKNOWN in groups:
        query = _merged(connection, run_id, groups, keys, descending)
        return Listing(_ids(connection, query, offset, limit), total)
    # it is nearer to the other end: what is passed over is read
    end = max(0, total - offset)
    query = _merged(connection, run_id, groups, keys, not descending)
    return Listing(_ids(connection, query, max(0, end - limit), min(limit, end))[::-1], total)


def _ids(connection: Connection, query: Any, offset: int, limit: int) -> tuple[int, ...]:
    return tuple(row.task_id for row in connection.execute(query.offset(offset).limit(limit)))


def _sorted(connection: Connection, keys: Iterable[ColumnElement[Any]], descending: bool) -> list[ColumnElement[Any]]:
    """Return keys to sort by, what is null before all else as SQLite has it."""
    if connection.dialect.name == "sqlite":
        return [key.desc() if descending else key.asc() for key in keys]
    return [key.desc().nulls_last() if descending else key.asc().nulls_first() for key in keys]


def _by_value(connection: Connection, key: ColumnElement[Any]) -> ColumnElement[Any]:
    """Return a key that SQLite looks for no index for: it would read all tasks in this order to sort a few."""
    return UnaryExpression(key, operator=custom_op("+")) if connection.dialect.name == "sqlite" else key


def _conditions(columns: Any, run_id: str, which: TaskFilter) -> list[ColumnElement[bool]]:
    """Return what app and state leave, of tasks or of their sums: the columns of either."""
    conditions: list[ColumnElement[bool]] = [columns.run_id == run_id]
    if which.app:
        conditions.append(columns.task_func_name == which.app)
    if which.states:
        conditions.append(columns.task_status.in_(which.states))
    return conditions


# -- groups, merged


def _merged(
    connection: Connection, run_id: str, groups: Sequence[_Group], keys: Sequence[ColumnElement[Any]], descending: bool
) -> Any:  # a select, or a union of some
    first, *more = [select(*keys).where(_T.run_id == run_id, *group) for group in groups]
    if not more:
        return first.order_by(*_sorted(connection, keys, descending))
    union = union_all(first, *more)
    return union.order_by(*_sorted(connection, union.selected_columns, descending))


def _groups(connection: Connection, run_id: str, which: TaskFilter, *, by_tries: bool) -> list[_Group] | None:
    """Return conditions that tell the groups apart; None where they are too many to be merged."""
    groups: list[_Group] = []
    for kind in _kinds(connection, run_id, which):
        if by_tries:
            groups.extend((*kind, _is(_T.task_tries, tries)) for tries in _tries(connection, run_id, kind))
        else:
            groups.append(kind)
        if len(groups) > _MOST_GROUPS:
            return None
    if not which.app and not which.states and _any(connection, run_id, _UNKNOWN):
        groups.append(_UNKNOWN)
    return groups


def _kinds(connection: Connection, run_id: str, which: TaskFilter) -> list[_Group]:
    """Return the pairs of app and state that tasks have. A task whose submission is in a gap has no app."""
    c = t.app_status.c
    query = select(c.task_func_name, c.task_status).where(*_conditions(c, run_id, which), c.tasks > 0)
    return [
        (_is(_T.task_func_name, app or None), _is(_T.task_status, state))
        for app, state in connection.execute(query.order_by(c.task_func_name, c.task_status))
    ]


def _any(connection: Connection, run_id: str, group: _Group) -> bool:
    query = select(_T.task_id).where(_T.run_id == run_id, *group).limit(1)
    return connection.execute(query).first() is not None


def _tries(connection: Connection, run_id: str, kind: _Group) -> list[int | None]:
    """Return the numbers of tries that tasks of an app in a state have: a look into the index for each."""
    of_kind = (_T.run_id == run_id, *kind)
    found: list[int | None] = [None] if _any(connection, run_id, (*kind, _T.task_tries.is_(None))) else []
    least = connection.execute(select(func.min(_T.task_tries)).where(*of_kind)).scalar()
    while least is not None and len(found) <= _MOST_GROUPS:
        found.append(least)
        least = connection.execute(select(func.min(_T.task_tries)).where(*of_kind, _T.task_tries > least)).scalar()
    return found


def _is(column: ColumnElement[Any], value: object) -> ColumnElement[bool]:
    return column.is_(None) if value is None else column == value


def _count(connection: Connection, run_id: str, which: TaskFilter) -> int:
    """Return how many tasks there are, from the sums."""
    c = t.app_status.c
    query = select(func.sum(c.tasks)).where(*_conditions(c, run_id, which))
    return int(connection.execute(query).scalar() or 0)


# -- text


def _search(connection: Connection, run_id: str, which: TaskFilter) -> Select[Any]:
    """Return the tasks that a text is found in, or the one whose id it is."""
    text, conditions = which.search.strip(), _conditions(_T, run_id, which)
    if text.isdecimal() and len(text) < 19:
        return select(_T.task_id).where(*conditions, _T.task_id == int(text))
    like = "LIKE" if connection.dialect.name == "sqlite" else "ILIKE"
    some = or_(_T.task_label.is_not(None), _T.task_error.is_not(None))  # as the index of texts says it
    found = or_(_has(_T.task_label, text, like), _has(_T.task_error, text, like))
    return select(_T.task_id).where(*conditions, some, found)


def _has(column: ColumnElement[str | None], text: str, like: str) -> ColumnElement[bool]:
    """Look for text, small or capital: SQLite's LIKE does not tell them apart, PostgreSQL has ILIKE for it.

    ``icontains`` would make small letters of every row first: half of the time on a million rows.
    """
    escaped = text.replace("/", "//").replace("%", "/%").replace("_", "/_")
    pattern = f"%{escaped}%"
    return column.like(pattern, escape="/") if like == "LIKE" else column.ilike(pattern, escape="/")
