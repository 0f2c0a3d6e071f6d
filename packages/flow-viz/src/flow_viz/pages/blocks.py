"""The page of the blocks and nodes of a run."""

from __future__ import annotations

from flask import Blueprint

from flow_monitor.queries import blocks
from flow_viz.app_context import site
from flow_viz.page_layout import show

blueprint = Blueprint("blocks", __name__)


@blueprint.get("/workflow/<run:run_id>/blocks")
def page(run_id: str) -> str:
    """Show blocks with the states and reasons that their scheduler gave, and their nodes. 404: no such run."""
    with site().database.connect() as connection:
        return show(
            "blocks.html",
            connection,
            run_id,
            "blocks.page",
            blocks=blocks.blocks(connection, run_id),
            nodes=blocks.nodes(connection, run_id),
        )
