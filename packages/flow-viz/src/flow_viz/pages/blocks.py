"""Blocks and nodes of a run."""

from __future__ import annotations

from flask import Blueprint

from flow_monitor.queries import blocks
from flow_viz.pages.frame import show
from flow_viz.site import site

blueprint = Blueprint("blocks", __name__)


@blueprint.get("/workflow/<run:run_id>/blocks")
def page(run_id: str) -> str:
    """Show blocks with what the scheduler said of them, and the nodes that came."""
    with site().database.connect() as connection:
        return show(
            "blocks.html",
            connection,
            run_id,
            "blocks.page",
            blocks=blocks.blocks(connection, run_id),
            nodes=blocks.nodes(connection, run_id),
        )
