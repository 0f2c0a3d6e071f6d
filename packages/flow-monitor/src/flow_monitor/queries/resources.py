"""Use of resources over time: of the run, and by node, block or app."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from enum import Enum
from itertools import pairwise
from typing import Any

from sqlalchemy import ColumnElement, FromClause, Select, and_, func, select
from sqlalchemy.engine import Connection

from flow_monitor.queries.records import Usage
from flow_monitor.schema import tables as t

_R = t.resource.c
_PARTS = 4
"""Of the time of a run: the samples of all are read at once."""


class Grouping(Enum):
    """By what use is summed."""

    WORKFLOW = "workflow"
    NODE = "node"
    BLOCK = "block"
    APP = "app"


def sampled(connection: Connection, run_id: str) -> bool:
    """Return whether there are samples of a run."""
    return connection.execute(select(_R.timestamp).where(_R.run_id == run_id).limit(1)).first() is not None


def usage(connection: Connection, run_id: str, by: Grouping = Grouping.WORKFLOW, bins: int = 200) -> tuple[Usage, ...]:
    """Return CPU (cores) and memory of the tasks' processes over time: a mean per process and bin, summed by group."""
    low, high = _bounds(connection, run_id)
    if low is None or high is None:
        return ()
    width = max(1, (high - low) // bins + 1)
    parts = _PARTS if connection.dialect.name == "sqlite" else 1  # a server shares its work out by itself
    ends = [low + width * (bins * part // parts) for part in range(parts + 1)]
    found = _at_once(connection, [_used(run_id, by, low, width, begin, end) for begin, end in pairwise(ends)])
    return tuple(
        Usage(
            low + int(at) * width + width // 2, name or "", float(cpu or 0) / 100, float(memory or 0), float(count or 0)
        )
        for at, name, cpu, memory, count in found
    )


def _used(run_id: str, by: Grouping, low: int, width: int, begin: int, end: int) -> Select[Any]:
    """Return a query of use in the bins from a time to another; bins are counted from ``low``."""
    slot = ((_R.timestamp - low) // width).label("slot")
    group, source = _group(by)
    each = (
        select(
            slot,
            group.label("grouped"),
            func.avg(_R.psutil_process_cpu_percent).label("cpu"),
            func.avg(_R.psutil_process_memory_resident).label("memory"),
            func.avg(_R.psutil_process_count).label("processes"),
        )
        .select_from(source)
        .where(_R.run_id == run_id, _R.timestamp >= begin, _R.timestamp < end, _R.task_id.is_not(None))
        .group_by("slot", "grouped", _R.task_id, _R.try_id)
        .subquery()
    )
    c = each.c
    return (
        select(c.slot, c.grouped, func.sum(c.cpu), func.sum(c.memory), func.sum(c.processes))
        .group_by(c.slot, c.grouped)
        .order_by(c.slot, c.grouped)
    )


def _at_once(connection: Connection, queries: Sequence[Select[Any]]) -> Iterator[Any]:
    """Yield the rows of one query after the other, all asked at once: while one waits for the disk another counts."""
    if len(queries) == 1:
        yield from connection.execute(queries[0])
        return

    def ask(query: Select[Any]) -> Sequence[Any]:
        with connection.engine.connect() as another:
            return another.execute(query).all()

    with ThreadPoolExecutor(len(queries)) as pool:
        for rows in pool.map(ask, queries):
            yield from rows


def node_load(connection: Connection, run_id: str, bins: int = 200) -> tuple[Usage, ...]:
    """Return the load of whole nodes over time: CPU in per cent of the node / 100, memory in bytes."""
    low, high = _bounds(connection, run_id)
    if low is None or high is None:
        return ()
    width = max(1, (high - low) // bins + 1)
    slot = (_R.timestamp - low) // width
    query = (
        select(
            slot.label("slot"),
            _R.hostname,
            func.avg(_R.psutil_process_cpu_percent),
            func.avg(_R.psutil_process_memory_resident),
            func.avg(_R.psutil_process_count),
        )
        .where(_R.run_id == run_id, _R.timestamp.between(low, high), _R.task_id.is_(None))
        .group_by("slot", _R.hostname)
        .order_by("slot")
    )
    return tuple(
        Usage(
            low + int(at) * width + width // 2, host or "", float(cpu or 0) / 100, float(memory or 0), float(count or 0)
        )
        for at, host, cpu, memory, count in connection.execute(query)
    )


def _bounds(connection: Connection, run_id: str) -> tuple[int | None, int | None]:
    """Return the first and the last time of a sample, each found at an end of the index."""
    first, last = (
        connection.execute(select(end(_R.timestamp)).where(_R.run_id == run_id)).scalar()
        for end in (func.min, func.max)
    )
    return first, last


def _group(by: Grouping) -> tuple[ColumnElement[str], FromClause]:
    if by is Grouping.APP:
        same = and_(t.task.c.run_id == _R.run_id, t.task.c.task_id == _R.task_id)
        return t.task.c.task_func_name, t.resource.join(t.task, same)
    column = {
        Grouping.NODE: _R.hostname,
        Grouping.BLOCK: func.coalesce(_R.executor, "") + "/" + func.coalesce(_R.block_id, ""),
    }
    return column.get(by, func.coalesce("", "")), t.resource
