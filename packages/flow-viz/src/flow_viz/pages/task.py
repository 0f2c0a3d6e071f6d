"""The page of one task: tries, states, errors, files, output, resource curves."""

from __future__ import annotations

from flask import Blueprint
from flask.typing import ResponseReturnValue

from flow_monitor.queries import tasks, workflows
from flow_viz.app_context import site
from flow_viz.output import tail
from flow_viz.page_layout import show
from flow_viz.plots.resources import task_figure, task_flow_figure

blueprint = Blueprint("task", __name__)


@blueprint.get("/workflow/<run:run_id>/task/<int:task_id>")
def page(run_id: str, task_id: int) -> str:
    """Show all that the database and the task's output files have on a task. 404: no such run or task."""
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
            # Two are enough to know that there is a curve to draw; the page itself fetches them all later.
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
    """Return the picture of a task's disk and network traffic so far. 404: no such run or task."""
    with site().database.connect() as connection:
        return task_flow_figure(tasks.samples(connection, run_id, task_id)).plain()
