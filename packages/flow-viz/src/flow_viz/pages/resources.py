"""The page of a run's use of CPU and memory."""

from __future__ import annotations

from flask import Blueprint, abort, request
from flask.typing import ResponseReturnValue

from flow_monitor.queries import resources, workflows
from flow_monitor.queries.resources import Grouping
from flow_viz.app_context import site
from flow_viz.page_layout import show
from flow_viz.plots import resources as plots
from flow_viz.plots.colors import run_colors
from flow_viz.plots.figure import Figure

blueprint = Blueprint("resources", __name__)


def parse_grouping() -> Grouping:
    """Return the grouping of resource use that the address asks for; by default the whole run."""
    return {by.value: by for by in Grouping}.get(request.args.get("by", ""), Grouping.WORKFLOW)


@blueprint.get("/workflow/<run:run_id>/resources")
def page(run_id: str) -> str:
    """Show CPU and memory over time, and CPU time by app."""
    with site().database.connect() as connection:
        return show(
            "resources.html",
            connection,
            run_id,
            "resources.page",
            by=parse_grouping().value,
            groupings=[by.value for by in Grouping],
            known=resources.known(connection, run_id),
            sampled=resources.sampled(connection, run_id),
        )


@blueprint.get("/workflow/<run:run_id>/resources/<what>.json")
def figure(run_id: str, what: str) -> ResponseReturnValue:
    """Return one of the pictures: ``cpu``, ``memory``, ``node_cpu``, ``node_memory``, ``app_cpu``."""
    if what not in ("cpu", "memory", "node_cpu", "node_memory", "app_cpu"):
        abort(404)
    by = parse_grouping()
    with site().database.connect() as connection:
        # Part of the key of the cache: the same sums serve all viewers until the run has new events.
        revision = workflows.revision(connection, run_id)
        if what == "app_cpu":
            apps = workflows.apps(connection, run_id)
            made: Figure = plots.app_cpu_figure(
                [app.name for app in apps], [app.cpu_s for app in apps], [app.run_time_sum_s for app in apps]
            )
        elif what.startswith("node"):
            load = site().cached((run_id, "node", revision), lambda: resources.node_load(connection, run_id))
            made = plots.node_cpu_figure(load) if what == "node_cpu" else plots.node_memory_figure(load)
        else:
            usage = site().cached((run_id, by, revision), lambda: resources.usage(connection, run_id, by))
            apps_colors = run_colors(connection, run_id) if by is Grouping.APP else {}
            draw = plots.cpu_figure if what == "cpu" else plots.memory_figure
            made = draw(usage, apps_colors)
    return made.plain()
