"""The page of the timeline of a run."""

from __future__ import annotations

import time

from flask import Blueprint, request, url_for
from flask.typing import ResponseReturnValue

from flow_monitor.queries import timeline, workflows
from flow_viz.app_context import site
from flow_viz.page_layout import is_live, show
from flow_viz.plots.colors import run_colors
from flow_viz.plots.timeline import timeline_figure

blueprint = Blueprint("timeline", __name__)
_BARS = 3000  # bars in one picture, a selection above; browsers become slow with more. Only the magnitude matters


@blueprint.get("/workflow/<run:run_id>/timeline")
def page(run_id: str) -> str:
    """Show the tries of tasks as bars over time, one lane for each worker."""
    with site().database.connect() as connection:
        return show("timeline.html", connection, run_id, "timeline.page")


@blueprint.get("/workflow/<run:run_id>/timeline.json")
def figure(run_id: str) -> ResponseReturnValue:
    """Return the picture, of a window of time (``since``, ``until`` in milliseconds UTC) or of all."""
    with site().database.connect() as connection:
        run = workflows.one(connection, run_id)
        found = timeline.spans(connection, run_id, since=_asked("since"), until=_asked("until"), limit=_BARS)
        colors = run_colors(connection, run_id)
    # Tries without an end of a run that is over ended with it, at the last event that is known.
    now = time.time_ns() if is_live(run) else run.time_completed or run.time_last_event or 0
    return timeline_figure(found, colors, now, url_for("summary.page", run_id=run_id)).plain()


def _asked(name: str) -> int | None:
    try:
        value = int(float(request.args[name]) * 1e6)
    except (KeyError, ValueError, OverflowError):
        return None
    # Databases take 64 bits with a sign.
    return value if 0 <= value < 1 << 63 else None
