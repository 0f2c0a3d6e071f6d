"""Layout, collapsing and the critical path."""

from __future__ import annotations

import itertools
from collections import defaultdict

from hypothesis import given, settings, strategies as st

from flow_monitor.queries.records import AppGraph, AppSummary, GraphTask
from flow_viz.graph import grouping
from flow_viz.graph.critical import critical_path
from flow_viz.graph.drawing import Drawing
from flow_viz.graph.grouping import Level, best_level
from flow_viz.graph.joins import join_edges
from flow_viz.graph.layers import layout
from flow_viz.plots.colors import app_colors
from flow_viz.plots.graph import ColorBy, graph_figure

edges_of = st.lists(st.tuples(st.integers(0, 25), st.integers(0, 25)), max_size=80)


@settings(max_examples=150, deadline=None)
@given(edges=edges_of)
def test_any_graph_is_laid_out_without_nodes_on_each_other(edges: list[tuple[int, int]]) -> None:
    made = layout(range(20), edges)
    assert len(made.nodes) == 20
    layers = defaultdict(list)
    for x, y in made.nodes.values():
        layers[x].append(y)
    for ys in layers.values():
        ys.sort()
        assert all(b - a > 0.999 for a, b in itertools.pairwise(ys))
    for (a, b), points in zip(edges, made.edges, strict=True):
        if a < 20 and b < 20 and a != b:
            assert points[0] == made.nodes[a]
            assert points[-1] == made.nodes[b]
        else:
            assert points == ()


@settings(max_examples=100, deadline=None)
@given(edges=edges_of)
def test_edges_of_a_graph_without_cycles_lead_to_the_right(edges: list[tuple[int, int]]) -> None:
    forward = [(min(a, b), max(a, b)) for a, b in edges if a != b]
    made = layout(range(26), forward)
    assert all(made.nodes[a][0] < made.nodes[b][0] for a, b in forward)


def test_a_long_chain_needs_no_recursion() -> None:
    made = layout(range(5000), [(i, i + 1) for i in range(4999)])
    assert made.nodes[4999] == (4999.0, 0.0)


def test_an_empty_graph_has_a_layout() -> None:
    assert layout([], []).nodes == {}


def task(
    task_id: int, app: str, depends: tuple[int, ...], depth: int, seconds: float, status: str = "exec_done"
) -> GraphTask:
    return GraphTask(task_id, app, status, depends, depth, seconds)


DIAMOND = (
    task(0, "split", (), 0, 1.0),
    task(1, "work", (0,), 1, 2.0),
    task(2, "work", (0,), 1, 5.0, "failed"),
    task(3, "merge", (1, 2), 2, 1.0),
)


def test_the_critical_path_is_the_chain_that_took_longest() -> None:
    path = critical_path(DIAMOND)
    assert path.tasks == (0, 2, 3)
    assert path.seconds == 7.0
    assert critical_path(()).tasks == ()


JOINED = (
    task(0, "read", (), 0, 1.0),
    GraphTask(1, "spread", "exec_done", (0,), 1, 0.5, waits_for=(5, 3)),
    task(2, "report", (1,), 2, 2.0),
    GraphTask(3, "work", "exec_done", (), 2, 3.0, parent=1),
    GraphTask(4, "work", "exec_done", (), 2, 4.0, parent=1),
    GraphTask(5, "inner", "exec_done", (4,), 3, 0.1, parent=1, waits_for=(6,)),
    GraphTask(6, "work", "exec_done", (), 4, 5.0, parent=5),
    GraphTask(7, "work", "exec_done", (), 2, 9.0, parent=1),
)


def test_the_critical_path_leads_through_the_tasks_that_joins_made() -> None:
    path = critical_path(JOINED[:7])
    assert path.tasks == (0, 1, 4, 5, 6, 2)
    assert path.seconds == 1.0 + 0.5 + 4.0 + 0.1 + 5.0 + 2.0
    assert critical_path(JOINED).tasks == path.tasks  # what a join made and does not wait for delays nobody after it


def test_tasks_in_a_circle_are_not_followed() -> None:
    odd = (task(0, "a", (1,), 0, 5.0), task(1, "a", (0,), 0, 5.0), task(2, "b", (), 0, 1.0))
    assert critical_path(odd).tasks == (2,)


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_the_critical_path_is_the_longest_of_all_chains(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 8))
    seconds = data.draw(st.lists(st.integers(0, 9), min_size=count, max_size=count))
    depends = [data.draw(st.sets(st.integers(0, at - 1))) if at else set() for at in range(count)]
    tasks = [task(at, "a", tuple(depends[at]), 0, float(seconds[at])) for at in range(count)]

    def longest(at: int) -> float:
        return seconds[at] + max(map(longest, depends[at]), default=0.0)

    path = critical_path(tasks)
    assert path.seconds == max(map(longest, range(count)))
    assert sum(seconds[at] for at in path.tasks) == path.seconds
    assert all(a in depends[b] for a, b in itertools.pairwise(path.tasks))


def test_stages_hold_the_tasks_of_one_app_at_one_depth() -> None:
    graph = grouping.stages(DIAMOND, frozenset({2}))
    work = next(bundle for bundle in graph.bundles if bundle.app == "work")
    assert (work.tasks, work.states, work.critical) == (2, {"exec_done": 1, "failed": 1}, True)
    assert sorted(n for _, _, n in graph.edges) == [2, 2]
    assert grouping.count_stages(DIAMOND) == 3


JOIN = (
    task(0, "read", (), 0, 1.0),
    GraphTask(1, "spread", "joining", (), 0, 9.0, waits_for=(3, 0, 99)),
    GraphTask(2, "work", "exec_done", (), 1, 2.0, parent=1),
    GraphTask(3, "work", "exec_done", (2,), 2, 2.0, parent=1),
    GraphTask(4, "work", "exec_done", (), 1, 2.0, parent=77),
)


def test_a_join_task_has_an_edge_to_each_task_it_made_or_waits_for() -> None:
    assert join_edges(JOIN) == ((1, 2), (1, 3), (1, 0))
    graph = grouping.stages(JOIN)
    names = {bundle.key: (bundle.app, bundle.depth) for bundle in graph.bundles}
    assert {(names[a], names[b], n) for a, b, n in graph.joins} == {
        (("spread", 0), ("work", 1), 1),
        (("spread", 0), ("work", 2), 1),
        (("spread", 0), ("read", 0), 1),
    }


def test_edges_of_join_tasks_are_dotted_and_named() -> None:
    joins = join_edges(JOIN)
    edges = ((2, 3), *joins)
    drawing = Drawing(
        Level.TASKS, 5, critical_path(JOIN), tasks=JOIN, task_edges=edges, joins=len(joins),
        task_layout=layout(range(5), edges),
    )  # fmt: skip
    figure = graph_figure(drawing, ColorBy.APP, {}, str, str)
    dotted = [trace for trace in figure.traces if trace.get("line", {}).get("dash") == "dot"]
    assert [trace["name"] for trace in dotted] == ["made or awaited by a join task"]
    assert dotted[0]["x"].count(None) == len(joins)


def test_apps_are_one_node_each() -> None:
    summary = AppSummary("work", "python", {"exec_done": 3}, 3, 1.0, 1.0, 1.0, 1)
    graph = grouping.apps(AppGraph((summary,), (("work", "work", 2),)))
    assert graph.bundles[0].tasks == 3


def test_large_graphs_are_collapsed() -> None:
    assert best_level(100, 90) is Level.TASKS
    assert best_level(10_000, 40) is Level.STAGES
    assert best_level(10_000, 10_000) is Level.APPS


def test_apps_keep_different_colours() -> None:
    assert len(set(app_colors([f"app{i}" for i in range(15)]).values())) == 15
    assert len(app_colors([f"app{i}" for i in range(100)])) == 100
