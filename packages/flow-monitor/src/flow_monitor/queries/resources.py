"""Use of resources over time: of the run, and by node, block or app."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from enum import Enum

from sqlalchemy import ColumnElement, Float, FromClause, and_, cast, func, select
from sqlalchemy.engine import Connection

from flow_monitor.project.usage import means
from flow_monitor.queries.records import Usage
from flow_monitor.schema import tables as t
from flow_monitor.schema.version import has_version

_R = t.resource.c
_Y = t.try_.c
_Changes = Mapping[str, Sequence[tuple[int, Sequence[float]]]]
"""Changes by group: begins of bins (ns) and the sums of each."""


class Grouping(Enum):
    """Groupings of the use of resources."""

    WORKFLOW = "workflow"
    NODE = "node"
    BLOCK = "block"
    APP = "app"


def sampled(connection: Connection, run_id: str) -> bool:
    """Return whether there are samples of a run."""
    return connection.execute(select(_R.timestamp).where(_R.run_id == run_id).limit(1)).first() is not None


def known(connection: Connection, run_id: str) -> bool:
    """Return whether the use of resources of a run's tasks is known: by samples, or by the ends of tries."""
    if sampled(connection, run_id):
        return True
    if has_version(connection, 5):
        some = select(t.usage_sums.c.bin_begin).where(t.usage_sums.c.run_id == run_id).limit(1)
    else:
        some = select(t.app.c.cpu_sum_s).where(t.app.c.run_id == run_id, t.app.c.cpu_sum_s > 0).limit(1)
    return connection.execute(some).first() is not None


def usage(connection: Connection, run_id: str, by: Grouping = Grouping.WORKFLOW, bins: int = 200) -> tuple[Usage, ...]:
    """Return CPU (cores) and memory of tasks over time: means over at most so many bins of equal width, by group.

    The sum of cores times width is the CPU time that workers reported of ended tries, and that samples have of
    those that go on. Every group has all bins. Reads the sums that the projection keeps; every try where a
    database was made by a version that kept none.
    """
    grouping = Grouping.APP if by is Grouping.WORKFLOW else by
    width, changes = _kept(connection, run_id, grouping) or _made(connection, run_id, grouping)
    if not changes:
        return ()
    if by is Grouping.WORKFLOW:
        changes = {"": [row for rows in changes.values() for row in rows]}
    begins = [begin for rows in changes.values() for begin, _ in rows]
    while max(begins) // width - min(begins) // width >= bins:
        width *= 2
    first = min(begins) // width * width
    count = (max(begins) - first) // width + 1
    found = {group: means(rows, first, width, count) for group, rows in changes.items()}
    return tuple(
        Usage(first + at * width, group, cores, memory, processes, width)
        for at in range(count)
        for group in sorted(found)
        for cores, memory, processes in (found[group][at],)
    )


def _kept(connection: Connection, run_id: str, by: Grouping) -> tuple[int, _Changes] | None:
    """Return the width of bins in ns and the changes that the projection has summed up; None where there are none."""
    if not has_version(connection, 5):
        return None
    c = t.usage_sums.c
    columns = (c.name, c.bin_begin, c.bin_width, c.cores, c.memory, c.processes)
    offsets = (c.cores_offset, c.memory_offset, c.processes_offset)
    rows = connection.execute(select(*columns, *offsets).where(c.run_id == run_id, c.grouping == by.value)).all()
    if not rows:
        return None
    changes = defaultdict(list)
    for name, begin, _, *sums in rows:
        changes[name].append((begin, sums))
    return rows[0].bin_width, changes


def _made(connection: Connection, run_id: str, by: Grouping) -> tuple[int, _Changes]:
    """Return the same as ``_kept``, made from the tries that ended: each taken to have used all it did evenly.

    Reads every try, and no samples: there may be many millions.
    """
    ended = and_(_Y.run_id == run_id, _Y.cpu_user_s.is_not(None), _Y.task_try_time_returned > _Y.task_try_time_running)
    bounds = select(func.min(_Y.task_try_time_running), func.max(_Y.task_try_time_returned)).where(ended)
    low, high = connection.execute(bounds).one()
    if low is None:
        return 1, {}
    # As the projection's: bins of 67 ms at least, some 300 of a run.
    width = 1 << max(26, int((high - low) // 300).bit_length())
    took = cast(_Y.task_try_time_returned - _Y.task_try_time_running, Float)
    cores = (_Y.cpu_user_s + func.coalesce(_Y.cpu_system_s, 0.0)) * 1e9 / took
    memory = cast(func.coalesce(_Y.max_rss_kb, 0), Float) * 1024.0
    group, source = _group(by)
    changes: dict[str, list[tuple[int, Sequence[float]]]] = defaultdict(list)
    # Each try is two changes: its use begins and ends, see Series.
    for column, sign in ((_Y.task_try_time_running, 1.0), (_Y.task_try_time_returned, -1.0)):
        offset = column % width
        begin, name = (column - offset).label("begin"), group.label("grouped")
        far = cast(offset, Float)
        sums = (func.sum(cores), func.sum(memory), func.count())
        offsets = (func.sum(cores * far), func.sum(memory * far), func.sum(far))
        query = select(name, begin, *sums, *offsets).select_from(source).where(ended).group_by("grouped", "begin")
        for found, start, *values in connection.execute(query):
            changes[found or ""].append((int(start), [sign * float(value or 0.0) for value in values]))
    return width, changes


def _group(by: Grouping) -> tuple[ColumnElement[str], FromClause]:
    """Return by what tries are summed, and the tables that it is in."""
    if by is Grouping.APP:
        same = and_(t.task.c.run_id == _Y.run_id, t.task.c.task_id == _Y.task_id)
        return t.task.c.task_func_name, t.try_.join(t.task, same)
    if by is Grouping.NODE:
        return func.coalesce(_Y.hostname, ""), t.try_
    return func.coalesce(_Y.task_executor, "") + "/" + func.coalesce(_Y.block_id, ""), t.try_


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
            low + int(at) * width + width // 2,
            host or "",
            float(cpu or 0) / 100,
            float(memory or 0),
            float(count or 0),
            width,
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
