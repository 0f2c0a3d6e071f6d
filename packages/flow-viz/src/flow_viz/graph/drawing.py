"""The drawing of a run's graph: read, grouped and laid out; the layout is kept as long as the shape stays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from flow_monitor.queries import graph as queries, workflows
from flow_monitor.queries.database import Connection
from flow_monitor.queries.records import GraphTask
from flow_viz.app_context import AppContext
from flow_viz.graph import grouping
from flow_viz.graph.critical import CriticalPath, critical_path
from flow_viz.graph.grouping import GroupedGraph, Level
from flow_viz.graph.joins import join_edges
from flow_viz.graph.layers import Layout, layout


@dataclass(frozen=True, slots=True)
class Drawing:
    """A graph with its layout. Either ``tasks`` or ``bundles`` is there, by level.

    The last ``joins`` edges of the layout are those from join tasks to what they made or wait for, the others are
    dependencies.
    """

    level: Level
    total: int
    critical: CriticalPath
    tasks: tuple[GraphTask, ...] = ()
    task_edges: tuple[tuple[int, int], ...] = ()
    joins: int = 0
    task_layout: Layout[int] | None = None
    bundles: GroupedGraph | None = None
    bundle_layout: Layout[str] | None = None
    note: str = ""


def draw(site: AppContext, connection: Connection, run_id: str, asked: Level | None) -> Drawing:
    """Return a drawing of a run's graph at the level asked for, or at the best that can be shown."""
    # Kept by the database, so a run of a million tasks is not read to find that it is too large.
    total = workflows.one(connection, run_id).submitted
    if total > grouping.MOST_READ or asked is Level.APPS:
        note = "" if asked is Level.APPS else f"Too many tasks ({total:,}) for stages: shown by app."
        return _draw_apps(site, connection, run_id, total, note if asked else "")
    tasks = queries.tasks(connection, run_id, grouping.MOST_READ)
    critical = critical_path(tasks)
    stages = grouping.count_stages(tasks)
    level = asked or grouping.best_level(len(tasks), stages)
    if level is Level.TASKS and len(tasks) > grouping.MOST_TASKS_ASKED:
        note = f"{total:,} tasks are too many to show one by one: shown by stage."
        return _draw_stages(site, run_id, tasks, critical, note)
    if level is Level.TASKS:
        return _draw_tasks(site, run_id, tasks, critical)
    if level is Level.STAGES:
        return _draw_stages(site, run_id, tasks, critical, "")
    return _draw_apps(site, connection, run_id, total, "")


def _draw_tasks(site: AppContext, run_id: str, tasks: tuple[GraphTask, ...], critical: CriticalPath) -> Drawing:
    ids = [task.task_id for task in tasks]
    edges = tuple((parent, task.task_id) for task in tasks for parent in task.depends)
    joins = join_edges(tasks)
    every = (*edges, *joins)
    # By the edges, not by the revision: states change every moment, and the layout does not depend on them.
    made = site.cached((run_id, "tasks", len(ids), hash(every)), lambda: layout(ids, every))
    return Drawing(Level.TASKS, len(tasks), critical, tasks=tasks, task_edges=every, joins=len(joins), task_layout=made)


def _draw_stages(
    site: AppContext, run_id: str, tasks: Sequence[GraphTask], critical: CriticalPath, note: str
) -> Drawing:
    bundles = grouping.stages(tasks, frozenset(critical.tasks))
    return Drawing(
        Level.STAGES,
        len(tasks),
        critical,
        bundles=bundles,
        joins=len(bundles.joins),
        bundle_layout=_layout_bundles(site, run_id, bundles),
        note=note,
    )


def _draw_apps(site: AppContext, connection: Connection, run_id: str, total: int, note: str) -> Drawing:
    bundles = grouping.apps(queries.apps(connection, run_id))
    made = _layout_bundles(site, run_id, bundles)
    return Drawing(
        Level.APPS, total, CriticalPath(), bundles=bundles, joins=len(bundles.joins), bundle_layout=made, note=note
    )


def _layout_bundles(site: AppContext, run_id: str, bundles: GroupedGraph) -> Layout[str]:
    keys = sorted(bundle.key for bundle in bundles.bundles)
    pairs = [(a, b) for a, b, _ in (*bundles.edges, *bundles.joins)]
    order = {bundle.key: (bundle.depth or 0, bundle.key) for bundle in bundles.bundles}
    # By depth first: the layout starts from this order, and so is the same at each look.
    keys.sort(key=lambda key: order[key])
    return site.cached((run_id, "bundles", tuple(keys), tuple(pairs)), lambda: layout(keys, pairs))
