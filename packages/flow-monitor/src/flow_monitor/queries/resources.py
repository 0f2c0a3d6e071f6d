"""Use of resources over time: of the run, and by node, block or app."""

from __future__ import annotations

from collections import defaultdict
from enum import Enum

from sqlalchemy import ColumnElement, FromClause, and_, func, select
from sqlalchemy.engine import Connection

from flow_monitor.queries.records import Usage
from flow_monitor.schema import tables as t

_R = t.resource.c


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
    low, high = connection.execute(
        select(func.min(_R.timestamp), func.max(_R.timestamp)).where(_R.run_id == run_id)
    ).one()
    if low is None:
        return ()
    width = max(1, (high - low) // bins + 1)
    slot = ((_R.timestamp - low) // width).label("slot")
    group, source = _group(by)
    query = (
        select(
            slot,
            group.label("grouped"),
            func.avg(_R.psutil_process_cpu_percent),
            func.avg(_R.psutil_process_memory_resident),
            func.avg(_R.psutil_process_count),
        )
        .select_from(source)
        .where(_R.run_id == run_id, _R.task_id.is_not(None))
        .group_by("slot", "grouped", _R.task_id, _R.try_id)
    )
    sums: dict[tuple[int, str], list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0])
    for at, name, cpu, memory, processes in connection.execute(query):
        total = sums[int(at), name or ""]
        total[0] += float(cpu or 0) / 100
        total[1] += float(memory or 0)
        total[2] += float(processes or 0)
    return tuple(Usage(low + at * width + width // 2, name, *sums[at, name]) for at, name in sorted(sums))


def node_load(connection: Connection, run_id: str, bins: int = 200) -> tuple[Usage, ...]:
    """Return the load of whole nodes over time: CPU in per cent of the node / 100, memory in bytes."""
    low, high = connection.execute(
        select(func.min(_R.timestamp), func.max(_R.timestamp)).where(_R.run_id == run_id)
    ).one()
    if low is None:
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
        .where(_R.run_id == run_id, _R.task_id.is_(None))
        .group_by("slot", _R.hostname)
        .order_by("slot")
    )
    return tuple(
        Usage(
            low + int(at) * width + width // 2, host or "", float(cpu or 0) / 100, float(memory or 0), float(count or 0)
        )
        for at, host, cpu, memory, count in connection.execute(query)
    )


def _group(by: Grouping) -> tuple[ColumnElement[str], FromClause]:
    if by is Grouping.APP:
        same = and_(t.task.c.run_id == _R.run_id, t.task.c.task_id == _R.task_id)
        return t.task.c.task_func_name, t.resource.join(t.task, same)
    column = {
        Grouping.NODE: _R.hostname,
        Grouping.BLOCK: func.coalesce(_R.executor, "") + "/" + func.coalesce(_R.block_id, ""),
    }
    return column.get(by, func.coalesce("", "")), t.resource
