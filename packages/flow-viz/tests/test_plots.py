"""Figures: what they say in numbers, units and labels."""

from __future__ import annotations

import pytest

from flow_monitor.queries.records import GraphTask, Span, TaskSample
from flow_monitor.queries.timeline import Timeline
from flow_viz import formatting
from flow_viz.graph.critical import CriticalPath
from flow_viz.graph.drawing import Drawing
from flow_viz.graph.grouping import GroupedGraph, Level, TaskGroup
from flow_viz.graph.layers import layout
from flow_viz.plots.graph import ColorBy, graph_figure
from flow_viz.plots.resources import app_cpu_figure, task_figure
from flow_viz.plots.timeline import timeline_figure


def labels(states: dict[str, int], color_by: ColorBy) -> list[str]:
    bundle = TaskGroup("k", "simulate", 1, sum(states.values()), states)
    drawing = Drawing(
        Level.APPS, bundle.tasks, CriticalPath(), bundles=GroupedGraph((bundle,), ()), bundle_layout=layout(["k"], [])
    )
    nodes = [trace for trace in graph_figure(drawing, color_by, {}, str, str).traces if "text" in trace]
    return [text for trace in nodes for text in trace["text"]]


def test_a_node_red_for_a_few_of_its_tasks_says_how_many() -> None:
    states = {"exec_done": 7299, "failed": 183}
    assert labels(states, ColorBy.STATE) == ["simulate \u00d7 7,482<br>183 failed"]
    assert labels(states, ColorBy.APP) == ["simulate \u00d7 7,482"]
    assert labels({"exec_done": 5}, ColorBy.STATE) == ["simulate \u00d7 5"]


@pytest.mark.parametrize("tasks", [3, 30, 120, 250])
def test_tasks_above_each_other_do_not_touch(tasks: int) -> None:
    nodes = [GraphTask(n, "a", "exec_done", (), 0, 0.0) for n in range(tasks)]
    made = layout(range(tasks), [])
    drawing = Drawing(Level.TASKS, tasks, CriticalPath(), tasks=tuple(nodes), task_layout=made)
    figure = graph_figure(drawing, ColorBy.APP, {}, str, str)
    (dots,) = (trace for trace in figure.traces if "text" in trace)
    low, high = sorted(figure.layout["yaxis"]["range"])
    room = figure.layout["height"] - figure.layout["margin"]["t"] - figure.layout["margin"]["b"] - 40  # the legend
    assert max(dots["marker"]["size"]) <= room / (high - low)


@pytest.mark.parametrize(
    ("seconds", "unit", "drawn"), [(100.0, "seconds", 100.0), (600.0, "minutes", 10.0), (36_000.0, "hours", 10.0)]
)
def test_times_of_apps_are_in_a_unit_that_fits(seconds: float, unit: str, drawn: float) -> None:
    figure = app_cpu_figure(["a"], [seconds / 2], [seconds])
    assert figure.layout["yaxis"]["title"]["text"] == f"{unit}, all tries"
    assert figure.traces[0]["y"] == [drawn]
    assert figure.traces[0]["hovertext"] == [formatting.seconds(seconds)]


def test_tries_of_a_task_are_told_apart_where_there_are_several() -> None:
    samples = [TaskSample(n, n % 2, 50.0, 1.0, 0.1, 1 << 20, 0, 0, 1) for n in range(4)]
    both = task_figure(samples).traces
    assert [trace["name"] for trace in both] == ["CPU, try 0", "memory, try 0", "CPU, try 1", "memory, try 1"]
    assert len({trace["line"]["dash"] for trace in both}) == 2
    assert [trace["name"] for trace in task_figure(samples[::2]).traces] == ["CPU", "memory"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("there is no task 3", "There is no task 3."),
        ("/a/b.db is locked", "/a/b.db is locked."),
        ("runinfo/m.db is locked", "runinfo/m.db is locked."),
        ("Done!", "Done!"),
        ("", ""),
    ],
)
def test_messages_are_sentences(text: str, said: str) -> None:
    assert formatting.sentence(text) == said


def test_a_try_that_is_run_again_in_another_block_is_no_failure() -> None:
    spans = tuple(
        Span(number, 0, "simulate", "node / w0", number, number + 1, verdict)
        for number, verdict in enumerate(("OK", "REQUEUED", "APP_ERROR"))
    )
    (bars,) = timeline_figure(Timeline(spans, complete=True), {"simulate": "blue"}, 9, "/").traces
    assert bars["marker"]["line"]["width"] == [0.5, 0.5, 2.0]
    assert "requeued" in bars["hovertext"][1]
