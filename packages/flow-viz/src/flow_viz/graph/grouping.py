"""Smaller pictures of large graphs: tasks of one app at one depth as a stage, or all tasks of an app as one node."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from flow_monitor.queries.records import AppGraph, GraphTask
from flow_viz.graph.joins import join_edges


class Level(Enum):
    """Level of detail of a graph: single tasks, stages (tasks of one app at one depth), or apps."""

    TASKS = "tasks"
    STAGES = "stages"
    APPS = "apps"


MOST_TASKS = 600
"""More tasks than this are not shown one by one unless asked for."""
MOST_TASKS_ASKED = 4_000  # tasks shown one by one on request; browsers become slow above. Only the magnitude matters
MOST_STAGES = 300  # nodes of a picture that can still be read; more stages than this are shown as apps
MOST_READ = 20_000
"""More tasks than this are only shown as apps."""


@dataclass(frozen=True, slots=True)
class TaskGroup:
    """A node of a collapsed graph."""

    key: str
    app: str
    depth: int | None
    tasks: int
    states: dict[str, int]
    critical: bool = False


@dataclass(frozen=True, slots=True)
class GroupedGraph:
    """A collapsed graph: edges as (from key, to key, number); ``joins`` lead to what join tasks made or wait for."""

    bundles: tuple[TaskGroup, ...]
    edges: tuple[tuple[str, str, int], ...]
    joins: tuple[tuple[str, str, int], ...] = ()


def best_level(tasks: int, stages: int | None) -> Level:
    """Return the level at which a graph is still readable."""
    if tasks <= MOST_TASKS:
        return Level.TASKS
    if stages is not None and stages <= MOST_STAGES:
        return Level.STAGES
    return Level.APPS


def stages(tasks: Sequence[GraphTask], critical: frozenset[int] = frozenset()) -> GroupedGraph:
    """Return the graph whose nodes are stages: the tasks of one app at one depth."""
    home = {task.task_id: _stage(task) for task in tasks}
    states: dict[str, Counter[str]] = {}
    info: dict[str, GraphTask] = {}
    edges: Counter[tuple[str, str]] = Counter()
    # A stage is on the critical path if one of its tasks is.
    marked = {home[task_id] for task_id in critical if task_id in home}
    for task in tasks:
        key = home[task.task_id]
        info.setdefault(key, task)
        states.setdefault(key, Counter())[task.status] += 1
        edges.update((home[parent], key) for parent in task.depends if parent in home)
    bundles = tuple(
        TaskGroup(key, task.app, task.depth, states[key].total(), dict(states[key]), key in marked)
        for key, task in info.items()
    )
    joins = Counter((home[above], home[below]) for above, below in join_edges(tasks))
    return GroupedGraph(
        bundles,
        tuple((a, b, n) for (a, b), n in edges.items()),
        tuple((a, b, n) for (a, b), n in joins.items()),
    )


def apps(graph: AppGraph) -> GroupedGraph:
    """Return the graph whose nodes are apps."""
    bundles = tuple(TaskGroup(node.name, node.name, None, node.count, dict(node.tasks)) for node in graph.nodes)
    return GroupedGraph(bundles, graph.edges, graph.joins)


def count_stages(tasks: Sequence[GraphTask]) -> int:
    """Return the number of stages that the tasks would be grouped into."""
    return len({(task.depth, task.app) for task in tasks})


def _stage(task: GraphTask) -> str:
    # NUL is in no app's name, so two stages never have one key.
    return f"{task.depth}\x00{task.app}"
