"""Lists of tasks, in any order with any filter: found in indexes, so that no page of a million tasks reads them all.

In the indexes the tasks of one app, in one state, with one number of tries, stand together in every order that lists
have. Such groups are few and known from the sums that pages show. A list is a row of segments: those of one app when it
is sorted by apps, first those whose run time is not known when by run times. A segment is some groups, merged by the
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

_T = t.task.c
_MOST_GROUPS = 100
"""Groups that one statement merges at most; where there are more, an index is read to its end."""
_DOWNWARD = 3
"""Factor by which PostgreSQL takes longer to read an index downward from a disk: the system reads ahead only upward."""


class TaskOrder(Enum):
    """Sort orders of a list of tasks; equal tasks are sorted by their ids.

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
    """Filter of a list of tasks; empty means all. ``search``: a task id, or text in label or error."""

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

_Group = tuple[ColumnElement[bool], ...]


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
    keys = _ORDERS[order]
    # A text leaves few tasks, which are sorted; the groups would have to be read whole for it.
    if which.search:
        search = _search(connection, run_id, which)
        return _found(connection, search, keys, descending=descending, offset=offset, limit=limit)
    total = _count(connection, run_id, which)
    kinds = _kinds(connection, run_id, which)
    segments = _segments(connection, run_id, kinds, order) if len(kinds) <= _MOST_GROUPS else None
    if segments is None:
        query = (
            select(_T.task_id).where(*_conditions(_T, run_id, which)).order_by(*_sorted(connection, keys, descending))
        )
        return Listing(_ids(connection, query, offset, limit), total)
    # Of the groups, not the total: an app that counts no tasks has no group.
    there = sum(kind.tasks for kind in kinds)
    end = max(0, there - offset)
    down = 1 if connection.dialect.name == "sqlite" else _DOWNWARD
    if offset * (down if descending else 1) <= end * (1 if descending else down):
        return Listing(_walk(connection, run_id, segments, offset, limit, descending=descending), total)
    # it is nearer to the other end: what is passed over is read
    found = _walk(connection, run_id, segments, max(0, end - limit), min(limit, end), descending=not descending)
    return Listing(found[::-1], total)


def _ids(connection: Connection, query: Any, offset: int, limit: int) -> tuple[int, ...]:
    return tuple(row.task_id for row in connection.execute(query.offset(offset).limit(limit)))


def _sorted(connection: Connection, keys: Iterable[ColumnElement[Any]], descending: bool) -> list[ColumnElement[Any]]:
    """Return keys to sort by, what is null before all else as SQLite has it."""
    if connection.dialect.name == "sqlite":
        return [key.desc() if descending else key.asc() for key in keys]
    return [key.desc().nulls_last() if descending else key.asc().nulls_first() for key in keys]


def _by_value(connection: Connection, key: ColumnElement[Any]) -> ColumnElement[Any]:
    """Return a key for which SQLite uses no index: it would read all tasks in this order to sort a few."""
    return UnaryExpression(key, operator=custom_op("+")) if connection.dialect.name == "sqlite" else key


def _conditions(columns: Any, run_id: str, which: TaskFilter) -> list[ColumnElement[bool]]:
    """Return the conditions of app and state on the columns of tasks, or of their sums."""
    conditions: list[ColumnElement[bool]] = [columns.run_id == run_id]
    if which.app:
        conditions.append(columns.task_func_name == which.app)
    if which.states:
        conditions.append(columns.task_status.in_(which.states))
    return conditions


# -- segments of groups


@dataclass(frozen=True, slots=True)
class _Kind:
    """Tasks of one app in one state, and their number; None where an event is missing, so that it is not known."""

    app: str | None
    state: str | None
    tasks: int

    @property
    def group(self) -> _Group:
        """The conditions that these tasks meet, as a group of the index."""
        return _is(_T.task_func_name, self.app), _is(_T.task_status, self.state)


@dataclass(frozen=True, slots=True)
class _Segment:
    """Groups that follow each other in a list, by what the tasks in them are sorted: a key is null in all or in none.

    ``tasks``: how many, None where that is not known.
    """

    groups: Sequence[_Group]
    keys: tuple[ColumnElement[Any], ...] = (_T.task_id,)
    tasks: int | None = None


def _segments(
    connection: Connection, run_id: str, kinds: Sequence[_Kind], order: TaskOrder
) -> Sequence[_Segment] | None:
    """Return the segments of a list on its way up; None where there are too many groups to be merged."""
    if order in _BY_TRIES:
        return _by_tries(connection, run_id, kinds, order)
    parts: dict[str | None, list[_Kind]] = {}
    for kind in sorted(kinds, key=lambda kind: kind.state or "") if order is TaskOrder.STATUS else kinds:
        name = {TaskOrder.APP: kind.app, TaskOrder.STATUS: kind.state}.get(order)
        parts.setdefault(name, []).append(kind)
    return [_Segment([kind.group for kind in part], tasks=sum(kind.tasks for kind in part)) for part in parts.values()]


def _by_tries(
    connection: Connection, run_id: str, kinds: Sequence[_Kind], order: TaskOrder
) -> Sequence[_Segment] | None:
    parts: dict[int | None, list[_Group]] = {}
    for kind in kinds:
        for tries in _tries(connection, run_id, kind.group):
            name = tries if order is TaskOrder.TRIES else None
            parts.setdefault(name, []).append((*kind.group, _is(_T.task_tries, tries)))
        if sum(map(len, parts.values())) > _MOST_GROUPS:
            return None
    segments = []
    for name in sorted(parts, key=lambda tries: -1 if tries is None else tries):
        for known in (False, True):
            timed = _T.task_run_time.is_not(None) if known else _T.task_run_time.is_(None)
            groups = [(*group, timed) for group in parts[name]]
            # Two segments, of known run times and of others: merging both would need an order of null that the
            # databases differ in.
            segments.append(_Segment(groups, (_T.task_run_time, _T.task_id)))  # as in the index, null or not
    return segments


def _walk(
    connection: Connection, run_id: str, segments: Sequence[_Segment], offset: int, limit: int, *, descending: bool
) -> tuple[int, ...]:
    """Return a part of a list: segments before it are passed over, unread where their size is known."""
    found: list[int] = []
    for segment in reversed(segments) if descending else segments:
        if segment.tasks is not None and offset >= segment.tasks:
            offset -= segment.tasks
            continue
        query = _merged(connection, run_id, segment, descending, offset + limit)
        part = _ids(connection, query, offset, limit - len(found))
        found.extend(part)
        if len(found) == limit:
            break
        # Nothing came: the whole segment lies before the page, and its size is known only by counting.
        offset = 0 if part or not offset else offset - _size(connection, run_id, segment)
    return tuple(found)


def _merged(connection: Connection, run_id: str, segment: _Segment, descending: bool, reach: int) -> Any:
    """Return a statement that gives a segment, so far as it is read: a select, or a union of some."""
    keys = segment.keys
    first, *more = [select(*keys).where(_T.run_id == run_id, *group) for group in segment.groups]
    if not more:
        return first.order_by(*_directed(keys, descending))
    if connection.dialect.name == "sqlite":
        union = union_all(first, *more)
    else:  # PostgreSQL sorts all of a union unless its parts have an order and an end
        union = union_all(*(part.order_by(*_directed(keys, descending)).limit(reach) for part in (first, *more)))
    return union.order_by(*_directed(union.selected_columns, descending))


def _directed(keys: Iterable[ColumnElement[Any]], descending: bool) -> list[ColumnElement[Any]]:
    return [key.desc() if descending else key.asc() for key in keys]


def _size(connection: Connection, run_id: str, segment: _Segment) -> int:
    counts = [
        select(func.count().label("tasks")).select_from(t.task).where(_T.run_id == run_id, *group)
        for group in segment.groups
    ]
    return sum(row.tasks for row in connection.execute(union_all(*counts)))


def _kinds(connection: Connection, run_id: str, which: TaskFilter) -> list[_Kind]:
    """Return the pairs of app and state that tasks have, by app. A task whose submission is in a gap has no app."""
    c = t.app_status.c
    query = select(c.task_func_name, c.task_status, c.tasks).where(*_conditions(c, run_id, which), c.tasks > 0)
    found = connection.execute(query.order_by(c.task_func_name, c.task_status))
    kinds = [_Kind(app or None, state, tasks) for app, state, tasks in found]
    if not which.app and not which.states:
        # tasks of which nothing but their ids is known are in no sums
        count = _size(connection, run_id, _Segment([_Kind(None, None, 0).group]))
        kinds[:0] = [_Kind(None, None, count)] if count else []
    return kinds


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


def _found(
    connection: Connection,
    search: Select[Any],
    keys: Sequence[ColumnElement[Any]],
    *,
    descending: bool,
    offset: int,
    limit: int,
) -> Listing:
    """Return a part of what was found. PostgreSQL has no index of texts: one query looks at all tasks, once."""
    if connection.dialect.name == "sqlite":
        total = connection.execute(select(func.count()).select_from(search.subquery())).scalar_one()
        query = search.order_by(*_sorted(connection, [_by_value(connection, key) for key in keys], descending))
        return Listing(_ids(connection, query, offset, limit), total)
    names = [f"key_{at}" for at in range(len(keys) - 1)] + ["task_id"]
    found = search.with_only_columns(*(key.label(name) for key, name in zip(keys, names, strict=True))).cte()
    count = select(func.count()).select_from(found)
    part = select(found.c.task_id, count.scalar_subquery().label("total"))
    part = part.order_by(*_sorted(connection, found.c, descending)).offset(offset).limit(limit)
    rows = connection.execute(part).all()
    total = rows[0].total if rows else connection.execute(count).scalar_one()
    return Listing(tuple(row.task_id for row in rows), total)


def _search(connection: Connection, run_id: str, which: TaskFilter) -> Select[Any]:
    """Return the query of tasks whose label or error has a text, or of the task with that id."""
    text, conditions = which.search.strip(), _conditions(_T, run_id, which)
    # Longer numbers are no 64-bit ids: PostgreSQL refuses them.
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
