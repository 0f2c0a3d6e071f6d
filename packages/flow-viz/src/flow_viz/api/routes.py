"""The JSON API: the records of ``flow_monitor.queries`` as they are."""

from __future__ import annotations

from collections.abc import Callable

from flask import Blueprint, request
from flask.typing import ResponseReturnValue

from flow_monitor.queries import blocks, graph, resources, tasks, timeline, workflows
from flow_monitor.queries.database import Connection
from flow_monitor.queries.workflows import WorkflowOrder
from flow_viz.api.encode import plain
from flow_viz.api.openapi import description
from flow_viz.api.pulse import Pulse
from flow_viz.app_context import site
from flow_viz.page_layout import is_live, may_come_back, parse_number
from flow_viz.pages.resources import parse_grouping
from flow_viz.pages.tasks import parse_filter, parse_order

blueprint = Blueprint("api", __name__, url_prefix="/api")


def _answer(ask: Callable[[Connection], object]) -> ResponseReturnValue:
    with site().database.connect() as connection:
        found = plain(ask(connection))
    # Flask makes JSON of dictionaries and lists only.
    return found if isinstance(found, dict | list) else {"value": found}


def _of_run(run_id: str, ask: Callable[[Connection], object]) -> ResponseReturnValue:
    """Answer a question about a run; 404 where there is no such run."""

    def both(connection: Connection) -> object:
        # Raises where there is no such run: the other queries would answer with an empty list, which looks like a run
        # without tasks.
        workflows.one(connection, run_id)
        return ask(connection)

    return _answer(both)


@blueprint.get("/openapi.json")
def openapi() -> ResponseReturnValue:
    """Return the OpenAPI document that describes this API."""
    from flow_viz import __version__

    return description(__version__)


@blueprint.get("/workflows")
def all_workflows() -> ResponseReturnValue:
    """Return a page of runs, newest first unless asked otherwise; at most 1000."""
    names = {order.value: order for order in WorkflowOrder}
    return _answer(
        lambda connection: workflows.page(
            connection,
            # Cut to a length that no search needs, since the address comes from anybody.
            search=request.args.get("q", "")[:200],
            order=names.get(request.args.get("sort", ""), WorkflowOrder.BEGAN),
            descending=request.args.get("dir", "desc") != "asc",
            # Far above any number of rows, and within the 64 bits that a database takes.
            offset=parse_number("offset", 0, 0, 1 << 40),
            # At most 1000: larger answers would hold one of the few threads of the server for long.
            limit=parse_number("limit", 100, 1, 1000),
        )
    )


@blueprint.get("/workflows/<run:run_id>")
def workflow(run_id: str) -> ResponseReturnValue:
    """Return one run: its state, counts and times. 404 where there is no such run."""
    return _answer(lambda connection: workflows.one(connection, run_id))


@blueprint.get("/workflows/<run:run_id>/pulse")
def pulse(run_id: str) -> ResponseReturnValue:
    """Return the pulse of a run, by which open pages see every few seconds whether anything changed."""

    def beat(connection: Connection) -> Pulse:
        run = workflows.one(connection, run_id)
        return Pulse(run.revision, is_live(run), run.state, may_come_back(run))

    return _answer(beat)


@blueprint.get("/workflows/<run:run_id>/apps")
def apps(run_id: str) -> ResponseReturnValue:
    """Return the apps of a run."""
    return _of_run(run_id, lambda connection: workflows.apps(connection, run_id))


@blueprint.get("/workflows/<run:run_id>/gaps")
def gaps(run_id: str) -> ResponseReturnValue:
    """Return the gaps in a run's events: numbers of events that are known to be missing."""
    return _of_run(run_id, lambda connection: workflows.gaps(connection, run_id))


@blueprint.get("/workflows/<run:run_id>/tasks")
def all_tasks(run_id: str) -> ResponseReturnValue:
    """Return a page of tasks; the same filters as on the page."""
    order, descending = parse_order()
    return _of_run(
        run_id,
        lambda connection: tasks.page(
            connection,
            run_id,
            parse_filter(),
            order=order,
            descending=descending,
            offset=parse_number("offset", 0, 0, 1 << 40),
            limit=parse_number("limit", 100, 1, 1000),
        ),
    )


@blueprint.get("/workflows/<run:run_id>/tasks/<int:task_id>")
def task(run_id: str, task_id: int) -> ResponseReturnValue:
    """Return one task with its tries, states and files. 404 where there is no such run or task."""
    return _answer(lambda connection: tasks.one(connection, run_id, task_id))


@blueprint.get("/workflows/<run:run_id>/tasks/<int:task_id>/samples")
def samples(run_id: str, task_id: int) -> ResponseReturnValue:
    """Return the samples of a task."""
    return _of_run(run_id, lambda connection: tasks.samples(connection, run_id, task_id))


@blueprint.get("/workflows/<run:run_id>/graph")
def app_graph(run_id: str) -> ResponseReturnValue:
    """Return the graph of a run with one node for each app."""
    return _of_run(run_id, lambda connection: graph.apps(connection, run_id))


@blueprint.get("/workflows/<run:run_id>/timeline")
def spans(run_id: str) -> ResponseReturnValue:
    """Return tries, a selection where there are too many."""
    return _of_run(run_id, lambda connection: timeline.spans(connection, run_id).spans)


@blueprint.get("/workflows/<run:run_id>/resources")
def usage(run_id: str) -> ResponseReturnValue:
    """Return CPU and memory over time, summed as asked."""
    return _of_run(run_id, lambda connection: resources.usage(connection, run_id, parse_grouping()))


@blueprint.get("/workflows/<run:run_id>/blocks")
def all_blocks(run_id: str) -> ResponseReturnValue:
    """Return the blocks of a run with their states. 404 where there is no such run."""
    return _of_run(run_id, lambda connection: blocks.blocks(connection, run_id))


@blueprint.get("/workflows/<run:run_id>/nodes")
def all_nodes(run_id: str) -> ResponseReturnValue:
    """Return the nodes of a run. 404 where there is no such run."""
    return _of_run(run_id, lambda connection: blocks.nodes(connection, run_id))
