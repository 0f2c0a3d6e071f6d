"""Blocks and nodes of a run."""

from __future__ import annotations

from collections import defaultdict

from sqlalchemy import func, select
from sqlalchemy.engine import Connection

from flow_monitor.queries.records import Block, Hold, Node
from flow_monitor.schema import tables as t
from flow_monitor.schema.version import has_version

_LIMIT = 10_000  # rows of a page; only the magnitude matters: far more than any run has, and a bound on memory


def blocks(connection: Connection, run_id: str) -> tuple[Block, ...]:
    """Return the blocks of a run with their history, by executor and time."""
    history: dict[tuple[str, str], list[tuple[int, str, str]]] = defaultdict(list)
    h = t.block_status
    for row in connection.execute(select(h).where(h.c.run_id == run_id).order_by(h.c.timestamp).limit(10 * _LIMIT)):
        history[row.executor_label, row.block_id].append((row.timestamp, row.status, row.reason or ""))
    b = t.block
    query = select(b).where(b.c.run_id == run_id).order_by(b.c.executor_label, b.c.time_requested, b.c.block_id)
    return tuple(
        Block(
            executor=row.executor_label,
            block=row.block_id,
            job_id=row.job_id or "",
            status=row.status or "",
            reason=row.reason or "",
            time_requested=row.time_requested,
            time_changed=row.time_changed,
            history=tuple(history[row.executor_label, row.block_id]),
        )
        for row in connection.execute(query.limit(_LIMIT))
    )


def nodes(connection: Connection, run_id: str) -> tuple[Node, ...]:
    """Return the managers of a run with the number of tries each ran. When the run has ended, all have left."""
    n = t.node
    query = select(n).where(n.c.run_id == run_id).order_by(n.c.executor, n.c.time_joined).limit(_LIMIT)
    found = connection.execute(query).all()
    ended = _ended(connection, run_id)
    holds = {(one.executor, one.host): one for one in held(connection, run_id)} if ended is None else {}
    if all(row.tries_ended is not None for row in found):
        tries = {(row.executor, row.manager): row.tries_ended for row in found}
    else:
        tries = _count_tries(connection, run_id)
    return tuple(
        Node(
            executor=row.executor,
            manager=row.manager,
            block=row.block_id or "",
            host=row.hostname or "",
            pid=row.pid,
            workers=row.worker_count or 0,
            cpu_count=row.cpu_count or 0,
            memory=row.total_memory or 0,
            python_version=row.python_version or "",
            time_joined=row.time_joined,
            # A killed run has no events of its nodes' end.
            time_left=row.time_left or ended,
            lost=bool(row.lost),
            reason=row.reason or ("" if row.time_left or not ended else "the run ended"),
            tries=tries.get((row.executor, row.manager), 0),
            held=None if row.time_left else holds.get((row.executor, row.hostname)),
        )
        for row in found
    )


def held(connection: Connection, run_id: str, executor: str | None = None) -> tuple[Hold, ...]:
    """Return the nodes that get no tasks of an executor, or of any; in databases before version 7 none is known."""
    if not has_version(connection, 7):
        return ()
    c = t.node_hold.c
    query = select(t.node_hold).where(c.run_id == run_id, c.time_held.is_not(None), c.time_freed.is_(None))
    if executor is not None:
        query = query.where(c.executor == executor)
    found = connection.execute(query.order_by(c.executor, c.hostname).limit(_LIMIT))
    return tuple(Hold(row.executor, row.hostname, row.reason or "", row.time_held) for row in found)


def _ended(connection: Connection, run_id: str) -> int | None:
    """Return when a run ended, or the time of its last event if it was killed; None while it has not ended."""
    w = t.workflow.c
    row = connection.execute(
        select(w.time_completed, w.time_last_event).where(w.run_id == run_id, w.ended_how.is_not(None))
    ).one_or_none()
    return None if row is None else row.time_completed or row.time_last_event


def _count_tries(connection: Connection, run_id: str) -> dict[tuple[str, str], int]:
    """Count from the tries, for databases of before sums were kept. Reads every try."""
    y = t.try_.c
    count = (
        select(y.task_executor, y.manager, func.count()).where(y.run_id == run_id).group_by(y.task_executor, y.manager)
    )
    return {(executor, manager): number for executor, manager, number in connection.execute(count)}
