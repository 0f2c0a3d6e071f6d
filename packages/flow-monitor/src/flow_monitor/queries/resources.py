"""Use of resources over time: of the run, and by node, block or app."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from enum import Enum

from sqlalchemy import and_, func, select
from sqlalchemy.engine import Connection

from flow_monitor.project.store import take_sample
from flow_monitor.project.usage import GROUPINGS, UseOverTime, means
from flow_monitor.queries.records import Usage
from flow_monitor.schema import tables as t
from flow_monitor.schema.version import HEAD, version_of

_R = t.resource.c
_Y = t.try_.c
_Changes = Mapping[str, Sequence[tuple[int, Sequence[float]]]]
"""By group: begins of bins and what changed in them."""


class Grouping(Enum):
    """By what use is summed."""

    WORKFLOW = "workflow"
    NODE = "node"
    BLOCK = "block"
    APP = "app"


def sampled(connection: Connection, run_id: str) -> bool:
    """Return whether there are samples of a run."""
    return connection.execute(select(_R.timestamp).where(_R.run_id == run_id).limit(1)).first() is not None


def known(connection: Connection, run_id: str) -> bool:
    """Return whether anything is known of what the tasks of a run use: by samples, or by what their workers told."""
    if sampled(connection, run_id):
        return True
    if version_of(connection) == HEAD:
        some = select(t.usage_sums.c.bin_begin).where(t.usage_sums.c.run_id == run_id).limit(1)
    else:
        some = select(t.app.c.cpu_sum_s).where(t.app.c.run_id == run_id, t.app.c.cpu_sum_s > 0).limit(1)
    return connection.execute(some).first() is not None


def usage(connection: Connection, run_id: str, by: Grouping = Grouping.WORKFLOW, bins: int = 200) -> tuple[Usage, ...]:
    """Return CPU (cores) and memory of tasks over time: means over at most so many bins of equal width, by group.

    The sum of cores times width is the CPU time that workers told of the tries that ended, and what samples say of
    those that go on. Every group has all bins. Reads the sums that the projection keeps; samples and tries where a
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
    if version_of(connection) != HEAD:
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
    """Return the same as ``_kept``, from samples and tries: reads all of them, task by task."""
    sums = UseOverTime()
    samples = connection.execute(
        select(t.resource).where(_R.run_id == run_id, _R.task_id.is_not(None)).order_by(_R.task_id, _R.timestamp)
    )
    sample = samples.fetchone()
    same = and_(t.task.c.run_id == _Y.run_id, t.task.c.task_id == _Y.task_id)
    tries = (
        select(t.try_, t.task.c.task_func_name)
        .join(t.task, same)
        .where(_Y.run_id == run_id)
        .order_by(_Y.task_id, _Y.try_id)
    )
    for row in connection.execute(tries):
        app, key = row.task_func_name or "", (row.task_id, row.try_id)
        groups = (app, row.hostname or "", f"{row.task_executor or ''}/{row.block_id or ''}")
        if row.task_try_time_running:
            sums.started(key, row.task_try_time_running, groups)
        while sample is not None and (sample.task_id, sample.try_id or 0) <= key:
            if (sample.task_id, sample.try_id) == key:
                take_sample(sums, sample, app)
            sample = samples.fetchone()
        if row.task_try_time_returned:
            cpu_s = None if row.cpu_user_s is None else row.cpu_user_s + (row.cpu_system_s or 0.0)
            most = (row.max_rss_kb or 0) * 1024
            sums.ended(key, row.task_try_time_running or 0, row.task_try_time_returned, groups, cpu_s, most)
        else:
            sums.live.pop(key, None)
    series = sums.series[GROUPINGS.index(by.value)]
    sums.settle()
    series.take()
    changes = defaultdict(list)
    for (name, begin), row_sums in series.bins.items():
        changes[name].append((begin, row_sums))
    return series.width, changes


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
