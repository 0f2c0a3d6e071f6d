"""The page of the graph of a run."""

from __future__ import annotations

from flask import Blueprint, request, url_for
from flask.typing import ResponseReturnValue

from flow_viz.app_context import site
from flow_viz.graph.drawing import draw
from flow_viz.graph.grouping import MOST_TASKS_ASKED, Level
from flow_viz.page_layout import show
from flow_viz.plots.colors import run_colors
from flow_viz.plots.graph import ColorBy, graph_figure

blueprint = Blueprint("graph", __name__)


def _parse_level() -> Level | None:
    return {level.value: level for level in Level}.get(request.args.get("level", ""))


def _parse_color() -> ColorBy:
    return {color.value: color for color in ColorBy}.get(request.args.get("color", ""), ColorBy.APP)


@blueprint.get("/workflow/<run:run_id>/graph")
def page(run_id: str) -> str:
    """Show the graph, coloured by app or by state."""
    level, color = _parse_level(), _parse_color()
    with site().database.connect() as connection:
        return show(
            "graph.html",
            connection,
            run_id,
            "graph.page",
            level="" if level is None else level.value,
            color=color.value,
            most_tasks=MOST_TASKS_ASKED,
        )


@blueprint.get("/workflow/<run:run_id>/graph.json")
def figure(run_id: str) -> ResponseReturnValue:
    """Return the picture of the graph as plotly's data, with the level that is shown. 404: no such run."""
    with site().database.connect() as connection:
        drawing = draw(site(), connection, run_id, _parse_level())
        colors = run_colors(connection, run_id)
    # Made once, rather than by url_for for each of thousands of tasks.
    base = url_for("summary.page", run_id=run_id)
    made = graph_figure(
        drawing,
        _parse_color(),
        colors,
        lambda task_id: f"{base}task/{task_id}",
        lambda app: url_for("tasks.page", run_id=run_id, app=app),
    )
    return {**made.plain(), "level": drawing.level.value}
