"""The timeline of a run: tries as bars, a lane a worker."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import and_, func, select
from sqlalchemy.engine import Connection

from flow_monitor.queries.records import Span
from flow_monitor.schema import tables as t

_Y = t.try_.c
_SAMPLE_BLOCKS = 150
"""Parts of the window that a selection is spread over: with 40 they looked like bursts, with 150 the eye sees none."""


@dataclass(frozen=True, slots=True)
class Timeline:
    """Tries that ran in a window of time; not ``complete`` where there were too many and some are left out."""

    spans: tuple[Span, ...]
    complete: bool


def spans(
    connection: Connection,
    run_id: str,
    *,
    since: int | None = None,
    until: int | None = None,
    limit: int = 5000,
) -> Timeline:
    """Return the tries that were running in a window, by start; spread over the window where there are too many."""
    bounds = _bounds(connection, run_id)
    if bounds is None:
        return Timeline((), True)
    low = bounds[0] if since is None else since
    high = bounds[1] if until is None else until
    # Tries that began before the window may run in it, but none longer before than the longest try took.
    before = low if since is None else low - _longest(connection, run_id)
    # One more than shown tells whether there are more.
    found = _some(connection, run_id, before, high + 1, limit + 1)
    if len(found) <= limit:
        return Timeline(tuple(s for s in found if s.start >= low or s.end is None or s.end >= low), True)
    parts = min(_SAMPLE_BLOCKS, limit)
    step = max(1, -(-(high + 1 - low) // parts))
    each = limit // parts
    spread: list[Span] = []
    for start in range(low, high + 1, step):
        spread.extend(_some(connection, run_id, start, min(start + step, high + 1), each))
    return Timeline(tuple(spread), False)


def running_per_app(
    connection: Connection, run_id: str, bins: int = 240
) -> tuple[tuple[int, ...], dict[str, tuple[float, ...]]]:
    """Return the begins of bins of time (ns), and for each app the mean number of its tries that ran in each bin.

    Reads the sums that the projection keeps; every try where a database was made by a version that kept none.
    """
    sums = _kept_sums(connection, run_id)
    if sums is None:
        return (), {}
    width, found = sums
    low = min(begin for _, begin in found)
    bounds = _bounds(connection, run_id)
    high = max(bounds[1] if bounds else low, max(begin for _, begin in found))
    # Powers of two, so that wider bins are sums of whole kept ones.
    factor = 1
    while (high - low) // (width * factor) >= bins:
        factor *= 2
    first = low - low % (width * factor)
    count = (high - first) // (width * factor) + 1
    running: dict[str, tuple[float, ...]] = {}
    for app in sorted({app for app, _ in found}):
        rows = [(begin, row) for (name, begin), row in found.items() if name == app]
        running[app] = _means(rows, first, width * factor, count, high)
    return tuple(first + at * width * factor for at in range(count)), running


_Sums = dict[tuple[str, int], tuple[int, int, int, int]]


def _kept_sums(connection: Connection, run_id: str) -> tuple[int, _Sums] | None:
    """Return the width of bins in ns and (started, ended, start offsets, end offsets) by app and begin of the bin."""
    c = t.app_activity.c
    columns = (c.task_func_name, c.bin_begin, c.bin_width, c.started, c.ended, c.start_offsets, c.end_offsets)
    kept = connection.execute(select(*columns).where(c.run_id == run_id)).all()
    if kept:
        return kept[0].bin_width, {(row[0], row[1]): (row[3], row[4], row[5], row[6]) for row in kept}
    return _made_sums(connection, run_id)


def _made_sums(connection: Connection, run_id: str) -> tuple[int, _Sums] | None:
    """Make the sums from the tries."""
    bounds = _bounds(connection, run_id)
    if bounds is None:
        return None
    # About 1 ms at least, and some 500 bins of a run, as the projection keeps them.
    width = 1 << max(20, ((bounds[1] - bounds[0]) // 500).bit_length())
    found: dict[tuple[str, int], list[int]] = {}
    same = and_(t.task.c.run_id == _Y.run_id, t.task.c.task_id == _Y.task_id)
    for at, column in enumerate((_Y.task_try_time_running, _Y.task_try_time_returned)):
        offset = column % width
        begin = (column - offset).label("begin")
        query = (
            select(t.task.c.task_func_name, begin, func.count(), func.sum(offset))
            .select_from(t.try_.join(t.task, same))
            .where(_Y.run_id == run_id, _Y.task_try_time_running.is_not(None), column.is_not(None))
            .group_by(t.task.c.task_func_name, "begin")
        )
        for app, start, tries, offsets in connection.execute(query):
            row = found.setdefault((app or "", int(start)), [0, 0, 0, 0])
            row[at] += tries
            row[at + 2] += int(offsets)
    return width, {key: (row[0], row[1], row[2], row[3]) for key, row in found.items()}


def _means(
    rows: list[tuple[int, tuple[int, int, int, int]]], first: int, width: int, count: int, high: int
) -> tuple[float, ...]:
    """Return the mean number that ran in each bin: those from before, and the part of it that others ran."""
    change, area = [0] * count, [0] * count
    for begin, (started, ended, start_offsets, end_offsets) in rows:
        at = min(count - 1, (begin - first) // width)
        # The last bin ends where the run does: else the tries that go on would be averaged over a future.
        end = min(first + (at + 1) * width, max(high, begin + 1)) - begin
        change[at] += started - ended
        area[at] += started * end - start_offsets - (ended * end - end_offsets)
    out, level = [], 0
    for at in range(count):
        length = max(1, min(first + (at + 1) * width, high) - (first + at * width))
        out.append(max(0.0, level + area[at] / length))
        level += change[at]
    return tuple(out)


def _bounds(connection: Connection, run_id: str) -> tuple[int, int] | None:
    """Return the first start and the last time anything is known of."""
    # each in a query of its own: SQLite looks at one end of the index then, not at all of it
    first, last_one = (
        select(end(_Y.task_try_time_running)).where(_Y.run_id == run_id).scalar_subquery()
        for end in (func.min, func.max)
    )
    low, high = connection.execute(select(first, last_one)).one()
    if low is None:
        return None
    w = t.workflow.c
    last = connection.execute(select(w.time_last_event).where(w.run_id == run_id)).scalar()
    return int(low), max(int(high), int(last or 0))


def _longest(connection: Connection, run_id: str) -> int:
    """Return how long the longest try took: none that began longer before a time was running at it."""
    c = t.app.c
    return int(connection.execute(select(func.max(c.run_time_max_ns)).where(c.run_id == run_id)).scalar() or 0)


def _some(connection: Connection, run_id: str, low: int, high: int, limit: int) -> list[Span]:
    same = and_(t.task.c.run_id == _Y.run_id, t.task.c.task_id == _Y.task_id)
    query = (
        select(
            _Y.task_id, _Y.try_id, t.task.c.task_func_name, _Y.task_executor, _Y.hostname, _Y.manager, _Y.worker,
            _Y.pid, _Y.task_try_time_running, _Y.task_try_time_returned, _Y.task_try_verdict,
        )
        .join(t.task, same)
        .where(_Y.run_id == run_id, _Y.task_try_time_running >= low, _Y.task_try_time_running < high)
        .order_by(_Y.task_try_time_running)
        .limit(limit)
    )  # fmt: skip
    return [
        Span(
            task_id,
            try_id,
            app or "",
            _lane(host, executor, worker, None if manager else pid),
            start,
            end,
            verdict or "",
        )
        for task_id, try_id, app, executor, host, manager, worker, pid, start, end, verdict in connection.execute(query)
    ]


def _lane(host: str | None, executor: str | None, worker: int | None, pid: int | None) -> str:
    """Return the name of a worker's lane: workers of two executors on one host are not the same.

    Without a manager processes have no numbers: those of a pool are distinguished by their ids.
    """
    process = f"pid {pid} / " if pid else ""
    return f"{host or '?'} / {executor or '?'} / {process}w{worker or 0}"
