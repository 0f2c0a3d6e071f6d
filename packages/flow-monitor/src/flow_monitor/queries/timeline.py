"""The timeline of a run: tries as bars, a lane a worker."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import and_, func, select
from sqlalchemy.engine import Connection

from flow_monitor.queries.records import Span
from flow_monitor.schema import tables as t

_Y = t.try_.c
_SAMPLE_BLOCKS = 40


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
    before = low if since is None else low - _longest(connection, run_id)
    found = _some(connection, run_id, before, high + 1, limit + 1)
    if len(found) <= limit:
        return Timeline(tuple(s for s in found if s.start >= low or s.end is None or s.end >= low), True)
    step = max(1, (high + 1 - low) // _SAMPLE_BLOCKS)
    each = max(1, limit // _SAMPLE_BLOCKS)
    spread: list[Span] = []
    for start in range(low, high + 1, step):
        spread.extend(_some(connection, run_id, start, min(start + step, high + 1), each))
    return Timeline(tuple(spread), False)


def running_per_app(
    connection: Connection, run_id: str, bins: int = 240
) -> tuple[tuple[int, ...], dict[str, tuple[int, ...]]]:
    """Return times (ns), and for each app how many of its tries ran at each of them. Reads every try."""
    bounds = _bounds(connection, run_id)
    if bounds is None:
        return (), {}
    low, high = bounds
    width = max(1, (high - low) // bins + 1)
    deltas: dict[str, list[int]] = {}
    start_bin = (_Y.task_try_time_running - low) // width
    for column, step in ((start_bin, 1), ((func.coalesce(_Y.task_try_time_returned, high) - low) // width, -1)):
        query = (
            select(t.task.c.task_func_name, column.label("slot"), func.count())
            .select_from(t.try_.join(t.task, and_(t.task.c.run_id == _Y.run_id, t.task.c.task_id == _Y.task_id)))
            .where(_Y.run_id == run_id, _Y.task_try_time_running.is_not(None))
            .group_by(t.task.c.task_func_name, "slot")
        )
        for app, at, count in connection.execute(query):
            row = deltas.setdefault(app or "", [0] * (bins + 2))
            row[max(0, min(int(at), bins)) + (step < 0)] += step * count
    return tuple(low + at * width for at in range(bins + 1)), {
        app: _sums(row)[: bins + 1] for app, row in deltas.items()
    }


def _sums(deltas: list[int]) -> tuple[int, ...]:
    out, level = [], 0
    for delta in deltas:
        level += delta
        out.append(level)
    return tuple(out)


def _bounds(connection: Connection, run_id: str) -> tuple[int, int] | None:
    """Return the first start and the last time anything is known of."""
    low, high = connection.execute(
        select(func.min(_Y.task_try_time_running), func.max(_Y.task_try_time_running)).where(_Y.run_id == run_id)
    ).one()
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
            _Y.task_id, _Y.try_id, t.task.c.task_func_name, _Y.task_executor, _Y.hostname, _Y.worker,
            _Y.task_try_time_running, _Y.task_try_time_returned, _Y.task_try_verdict,
        )
        .join(t.task, same)
        .where(_Y.run_id == run_id, _Y.task_try_time_running >= low, _Y.task_try_time_running < high)
        .order_by(_Y.task_try_time_running)
        .limit(limit)
    )  # fmt: skip
    return [
        Span(task_id, try_id, app or "", f"{host or executor or '?'} / w{worker or 0}", start, end, verdict or "")
        for task_id, try_id, app, executor, host, worker, start, end, verdict in connection.execute(query)
    ]
