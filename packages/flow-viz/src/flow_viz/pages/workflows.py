"""The list of all runs in the database: searched, sorted and paged."""

from __future__ import annotations

from flask import Blueprint, render_template, request

from flow_monitor.queries import workflows
from flow_monitor.queries.workflows import WorkflowOrder
from flow_viz.app_context import site
from flow_viz.page_layout import is_live, parse_number

blueprint = Blueprint("workflows", __name__)
_LIMIT = 50  # runs on one page; only the magnitude matters


@blueprint.get("/")
def page() -> str:
    """Show a page of 50 runs: searched and sorted by the database."""
    search = request.args.get("q", "")[:200]
    names = {order.value: order for order in WorkflowOrder}
    order = names.get(request.args.get("sort", ""), WorkflowOrder.BEGAN)
    descending = request.args.get("dir", "desc") != "asc"
    offset = parse_number("offset", 0, 0, 1 << 40)
    with site().database.connect() as connection:
        found = workflows.page(
            connection, search=search, order=order, descending=descending, offset=offset, limit=_LIMIT
        )
    return render_template(
        "workflows.html",
        found=found,
        search=search,
        order=order.value,
        descending=descending,
        live=any(is_live(run) for run in found.items),
    )
