"""Network traffic of tasks: of each try what its last sample says, since samples only grow. None where not known.

A task of ranks is sampled on each of its nodes, and these are summed up.
"""

from __future__ import annotations

from sqlalchemy import and_, func, select
from sqlalchemy.engine import Connection

from flow_monitor.schema import tables as t

Traffic = tuple[int | None, int | None]
"""Bytes sent and bytes received; None where not known."""
UNKNOWN: Traffic = (None, None)
_R = t.resource.c
_PLACE = (_R.hostname, _R.manager)


def of_tries(connection: Connection, run_id: str, first: int, last: int) -> dict[tuple[int, int], Traffic]:
    """Return the traffic of tries that were sampled, by task and try; of the tasks from ``first`` to ``last``."""
    query = (
        select(_R.task_id, _R.try_id, func.max(_R.psutil_process_net_sent), func.max(_R.psutil_process_net_received))
        .where(_R.run_id == run_id, _R.task_id.between(first, last))
        .group_by(_R.task_id, _R.try_id, *_PLACE)
    )
    found: dict[tuple[int, int], Traffic] = {}
    for task_id, try_id, sent, received in connection.execute(query):
        before = found.get((task_id, try_id), UNKNOWN)
        found[task_id, try_id] = _plus(before[0], sent), _plus(before[1], received)
    return found


def of_apps(connection: Connection, run_id: str) -> dict[str, Traffic]:
    """Return the traffic of all tries of each app that was sampled: what is not known of some is left out."""
    each = (
        select(
            _R.task_id,
            func.max(_R.psutil_process_net_sent).label("sent"),
            func.max(_R.psutil_process_net_received).label("received"),
        )
        .where(_R.run_id == run_id, _R.task_id.is_not(None))
        .group_by(_R.task_id, _R.try_id, *_PLACE)
        .subquery()
    )
    c, app = each.c, t.task.c.task_func_name
    query = (
        select(app, func.sum(c.sent), func.sum(c.received))
        .select_from(each.join(t.task, and_(t.task.c.run_id == run_id, t.task.c.task_id == c.task_id)))
        .group_by(app)
    )
    return {name or "": (_whole(sent), _whole(received)) for name, sent, received in connection.execute(query)}


def _plus(one: int | None, other: int | None) -> int | None:
    return other if one is None else one if other is None else one + other


def _whole(value: object) -> int | None:
    """Return a sum as a number: some databases make a decimal of it."""
    return None if value is None else int(value)  # type: ignore[call-overload]
