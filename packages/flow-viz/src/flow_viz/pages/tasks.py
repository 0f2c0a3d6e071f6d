"""The list of the tasks of a run: filtered, sorted and paged."""

from __future__ import annotations

from flask import Blueprint, request

from flow_monitor.queries import tasks, workflows
from flow_monitor.queries.tasks import TaskFilter, TaskOrder
from flow_viz import formatting
from flow_viz.app_context import site
from flow_viz.page_layout import parse_number, show
from flow_viz.plots.colors import run_colors

blueprint = Blueprint("tasks", __name__)
LIMIT = 100  # tasks on one page; only the magnitude matters


def parse_filter() -> TaskFilter:
    """Return the filter of the address."""
    return TaskFilter(
        # Cut to lengths that no real name has: the address comes from anybody.
        app=request.args.get("app", "")[:1000],
        states=tuple(name[:40] for name in request.args.getlist("state")[:20] if name),
        search=request.args.get("q", "")[:200],
    )


def parse_order() -> tuple[TaskOrder, bool]:
    """Return the order of the address, and whether it goes down."""
    names = {order.value: order for order in TaskOrder}
    return names.get(request.args.get("sort", ""), TaskOrder.ID), request.args.get("dir", "asc") == "desc"


@blueprint.get("/workflow/<run:run_id>/tasks")
def page(run_id: str) -> str:
    """Show tasks: filtered, sorted, paged by the database."""
    which, (order, descending) = parse_filter(), parse_order()
    offset = parse_number("offset", 0, 0, 1 << 40)
    with site().database.connect() as connection:
        apps = workflows.apps(connection, run_id)
        counts = workflows.counts_by_state(connection, run_id)
        found = tasks.page(connection, run_id, which, order=order, descending=descending, offset=offset, limit=LIMIT)
        return show(
            "tasks.html",
            connection,
            run_id,
            "tasks.page",
            found=found,
            which=which,
            order=order.value,
            descending=descending,
            apps=sorted(app.name for app in apps),
            colors=run_colors(connection, run_id),
            states=sorted(counts.items(), key=lambda item: formatting.state_order(item[0])),
        )
