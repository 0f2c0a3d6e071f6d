"""The summary page of a run: status, counts, times and apps."""

from __future__ import annotations

from flask import Blueprint
from flask.typing import ResponseReturnValue

from flow_monitor.queries import timeline, workflows
from flow_viz import formatting
from flow_viz.app_context import site
from flow_viz.page_layout import show
from flow_viz.plots.colors import run_colors
from flow_viz.plots.timeline import running_figure

blueprint = Blueprint("summary", __name__)


@blueprint.get("/workflow/<run:run_id>/")
def page(run_id: str) -> str:
    """Show status, counts, times and apps."""
    with site().database.connect() as connection:
        apps = workflows.apps(connection, run_id)
        counts = formatting.states_told_apart(workflows.counts_by_state(connection, run_id))
        states = sorted(counts.items(), key=lambda item: formatting.state_order(item[0]))
        return show(
            "summary.html",
            connection,
            run_id,
            "summary.page",
            apps=apps,
            states=states,
            total=sum(counts.values()),
            colors=run_colors(connection, run_id),
            gaps=workflows.gaps(connection, run_id),
            told_apart=formatting.states_told_apart,
            at_executors=list(formatting.AT_EXECUTORS),
        )


@blueprint.get("/workflow/<run:run_id>/running.json")
def running(run_id: str) -> ResponseReturnValue:
    """Return the picture of running tasks by app."""
    with site().database.connect() as connection:
        revision = workflows.revision(connection, run_id)
        times, counts = site().cached(
            (run_id, "running", revision), lambda: timeline.running_per_app(connection, run_id)
        )
        return running_figure(times, counts, run_colors(connection, run_id)).plain()
