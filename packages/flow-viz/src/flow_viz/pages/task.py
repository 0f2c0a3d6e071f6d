"""One task: tries, states, errors, files, output, resource curves."""

from __future__ import annotations

from flask import Blueprint
from flask.typing import ResponseReturnValue

from flow_monitor.queries import tasks, workflows
from flow_viz.output import tail
from flow_viz.pages.frame import show
from flow_viz.plots.resources import task_figure, task_flow_figure
from flow_viz.site import site

blueprint = Blueprint("task", __name__)


@blueprint.get("/workflow/<run:run_id>/task/<int:task_id>")
def page(run_id: str, task_id: int) -> str:
    """Show all that is known of a task."""
    with site().database.connect() as connection:
        run = workflows.one(connection, run_id)
        detail = tasks.one(connection, run_id, task_id)
        return show(
            "task.html",
            connection,
            run_id,
            "tasks.page",
            detail=detail,
            task=detail.task,
            sampled=bool(tasks.samples(connection, run_id, task_id, limit=2)),
            streams=[
                (name, path, tail(run.rundir, path))
                for name, path in (("stdout", detail.stdout), ("stderr", detail.stderr))
                if path
            ],
        )


@blueprint.get("/workflow/<run:run_id>/task/<int:task_id>/resources.json")
def resources(run_id: str, task_id: int) -> ResponseReturnValue:
    """Return the picture of a task's use of CPU and memory."""
    with site().database.connect() as connection:
        return task_figure(tasks.samples(connection, run_id, task_id)).plain()


@blueprint.get("/workflow/<run:run_id>/task/<int:task_id>/flow.json")
def flow(run_id: str, task_id: int) -> ResponseReturnValue:
    """Return the picture of what a task read, wrote, sent and received."""
    with site().database.connect() as connection:
        return task_flow_figure(tasks.samples(connection, run_id, task_id)).plain()
