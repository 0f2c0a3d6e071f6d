"""The picture of a graph: edges as soft curves, a trace a colour for the nodes, the critical path marked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import pairwise
from math import pi, sin, sqrt
from typing import Any

from flow_viz import formatting
from flow_viz.graph.drawing import Drawing
from flow_viz.graph.grouping import TaskGroup
from flow_viz.plots.colors import app_colors, state_color
from flow_viz.plots.figure import Figure, Trace, escape

Point = tuple[float, float]
_CRITICAL = "@text"
"""The colour of the page's text, filled in by the page: black on light, white on dark, like no app and no state."""
_JOIN = "#0ea5b7"
# Edges drawn as curves, of 8 to 14 points each; more are straight lines, or the answer has megabytes.
_MOST_CURVES = 1500
_LEAST_DOT, _LABELLED_DOT = 4.0, 14.0  # pixels: smaller ones cannot be hit by the mouse, or hold no number
_MOST_HEIGHT = 1200  # pixels of the picture; a large graph is zoomed, not scrolled
_MOST_ARROWS = 120  # edges with arrows; of more, the arrows hide the nodes
_BOW = 0.35  # nodes: how far an edge that leads back bows out, less than the room between two nodes


class ColorBy(Enum):
    """The meaning of the nodes' colours: app, or state."""

    APP = "app"
    STATE = "state"


@dataclass(frozen=True, slots=True)
class _Dot:
    """A node to draw, of ``size`` pixels. ``group`` is the app or state that gives its colour."""

    at: Point
    group: str
    hover: str
    link: str
    size: float
    text: str
    critical: bool


def graph_figure(
    drawing: Drawing,
    color_by: ColorBy,
    apps: Mapping[str, str],
    task_link: Callable[[int], str],
    app_link: Callable[[str], str],
) -> Figure:
    """Return the picture. ``apps``: colours of apps; links are addresses opened by a click on a node."""
    if drawing.task_layout is not None:
        dots = list(_task_dots(drawing, color_by, task_link))
        ways = list(zip(drawing.task_edges, drawing.task_layout.edges, strict=True))
        path = set(zip(drawing.critical.tasks, drawing.critical.tasks[1:], strict=False))
        split = len(ways) - drawing.joins
        plain = [way for edge, way in ways[:split] if edge not in path]
        marked = [way for edge, way in ways[:split] if edge in path]
        joins = [way for _, way in ways[split:]]
    else:
        dots = list(_bundle_dots(drawing, color_by, app_link))
        assert drawing.bundle_layout is not None
        bundled = drawing.bundle_layout.edges
        split = len(bundled) - drawing.joins
        plain, marked, joins = list(bundled[:split]), [], list(bundled[split:])
    arrows = drawing.bundles is not None and len(plain) <= _MOST_ARROWS
    look = (1.4, 0.8) if arrows else (1.0, 0.55)
    traces = [_edges(plain, "#8a94a6", *look, "dependencies", arrows=arrows)]
    if any(joins):
        traces.append(_edges(joins, _JOIN, look[0], 0.9, "made or awaited by a join task", arrows=arrows, dash="dot"))
    if marked:
        traces.append(_edges(marked, _CRITICAL, 2.6, 0.95, "critical path"))
    traces.extend(_nodes(dots, color_by, apps))
    return Figure(traces, _layout(dots), _note(drawing))


def _task_dots(drawing: Drawing, color_by: ColorBy, link: Callable[[int], str]) -> Iterable[_Dot]:
    assert drawing.task_layout is not None
    critical = frozenset(drawing.critical.tasks)
    count = len(drawing.tasks)
    size = max(5.0, min(20.0, 260 / sqrt(max(count, 1) + 40)))
    # Never larger than the room between two nodes: sixty tasks of one stage once looked like one bar.
    size = max(_LEAST_DOT, min(size, 0.85 * _pixels_between(drawing.task_layout.nodes.values())))
    for task in drawing.tasks:
        hover = f"<b>{escape(task.app)}</b> · task {task.task_id}<br>{formatting.state(task.status)}"
        if task.run_time_s:
            hover += f" · {formatting.seconds(task.run_time_s)}"
        if task.task_id in critical:
            hover += "<br>on the critical path"
        yield _Dot(
            at=drawing.task_layout.nodes[task.task_id],
            group=task.app if color_by is ColorBy.APP else task.status,
            hover=hover,
            link=link(task.task_id),
            size=size,
            text=str(task.task_id) if count <= 60 and size >= _LABELLED_DOT else "",
            critical=task.task_id in critical,
        )


def _bundle_dots(drawing: Drawing, color_by: ColorBy, link: Callable[[str], str]) -> Iterable[_Dot]:
    assert drawing.bundles is not None
    assert drawing.bundle_layout is not None
    most = max((bundle.tasks for bundle in drawing.bundles.bundles), default=1)
    few = len(drawing.bundles.bundles) <= 40
    deep = 1 + max((at[0] for at in drawing.bundle_layout.nodes.values()), default=0.0)
    room = max(6.0, min(26.0, 700 / deep))
    for bundle in drawing.bundles.bundles:
        states = "<br>".join(
            f"{formatting.state(name)}: {bundle.states[name]:,}"
            for name in sorted(bundle.states, key=formatting.state_order)
        )
        where = "" if bundle.depth is None else f" · depth {bundle.depth}"
        yield _Dot(
            at=drawing.bundle_layout.nodes[bundle.key],
            group=bundle.app if color_by is ColorBy.APP else _worst(bundle),
            hover=f"<b>{escape(bundle.app)}</b> \u00d7 {bundle.tasks:,}{where}<br>{states}",
            link=link(bundle.app),
            size=0.45 * room + room * sqrt(bundle.tasks / max(most, 1)),
            text=_bundle_text(bundle, color_by) if few else "",
            critical=bundle.critical,
        )


def _bundle_text(bundle: TaskGroup, color_by: ColorBy) -> str:
    """Return a label: with the number that gives the colour, where it is not of all."""
    text, state = f"{escape(bundle.app, 24)} \u00d7 {bundle.tasks:,}", _worst(bundle)
    number = bundle.states.get(state, 0)
    mixed = color_by is ColorBy.STATE and number != bundle.tasks
    return f"{text}<br>{number:,} {formatting.state(state)}" if mixed else text


def _worst(bundle: TaskGroup) -> str:
    """Return the state that a bundle is coloured by: failures first, then running, then its most frequent state."""
    for name in ("failed", "dep_fail", "running", "fail_retryable", "launched"):
        if bundle.states.get(name):
            return name
    return max(bundle.states, key=lambda name: bundle.states[name], default="pending")


def _edges(
    ways: Sequence[Sequence[Point]],
    color: str,
    width: float,
    opacity: float,
    name: str,
    *,
    arrows: bool = False,
    dash: str = "solid",
) -> Trace:
    """Return all edges of one look as one trace. With arrows each has one in its middle."""
    xs: list[float | None] = []
    ys: list[float | None] = []
    sizes: list[float] = []
    steps = 14 if len(ways) <= _MOST_CURVES // 2 else 8 if len(ways) <= _MOST_CURVES else 1
    for way in ways:
        if not way:
            continue
        points = list(_points(way, steps))
        middle = len(points) // 2
        sizes.extend(9.0 if arrows and at == middle else 0.0 for at in range(len(points) + 1))
        # None parts the lines of one trace: a trace for each edge would make the browser slow. Three digits are below
        # a pixel.
        xs.extend((*(round(x, 3) for x, _ in points), None))
        ys.extend((*(round(y, 3) for _, y in points), None))
    trace: Trace = {
        "type": "scatter", "mode": "lines", "x": xs, "y": ys, "name": name, "hoverinfo": "skip", "opacity": opacity,
        "line": {"color": color, "width": width, "dash": dash}, "showlegend": name != "dependencies",
    }  # fmt: skip
    if arrows:
        trace["mode"] = "lines+markers"
        trace["line"]["backoff"] = 0
        trace["marker"] = {
            "symbol": "arrow", "angleref": "previous", "size": sizes, "color": color, "opacity": 1, "line": {"width": 0}
        }  # fmt: skip
    return trace


def _points(way: Sequence[Point], steps: int) -> Iterable[Point]:
    """Yield the points of a curve that leaves and arrives level; one that leads back bows out, to be distinguished."""
    pieces = len(way) - 1
    bow = _BOW if way[-1][0] < way[0][0] else 0.0
    for piece, (start, end) in enumerate(pairwise(way)):
        for step in range(steps):
            t = step / steps
            out = bow * sin(pi * (piece + t) / pieces)
            # Smoothstep: it leaves and arrives level, so edges of one node do not cross near it.
            yield start[0] + (end[0] - start[0]) * t, start[1] + (end[1] - start[1]) * t * t * (3 - 2 * t) + out
    yield way[-1]


def _nodes(dots: Sequence[_Dot], color_by: ColorBy, apps: Mapping[str, str]) -> list[Trace]:
    groups: dict[str, list[_Dot]] = {}
    for dot in dots:
        groups.setdefault(dot.group, []).append(dot)
    if color_by is ColorBy.APP:
        colors, ordered = {**app_colors(groups), **apps}, sorted(groups)
        names = {group: escape(group, 40) for group in groups}
    else:
        colors, ordered = {g: state_color(g) for g in groups}, sorted(groups, key=formatting.state_order)
        names = {group: formatting.state(group) for group in groups}
    return [_node_trace(names[group], colors[group], groups[group]) for group in ordered]


def _node_trace(name: str, color: str, dots: Sequence[_Dot]) -> Trace:
    big = any(dot.text and dot.size > 12 and not dot.text.isdecimal() for dot in dots)
    return {
        "type": "scatter",
        "mode": "markers+text" if any(dot.text for dot in dots) else "markers",
        "name": name,
        "x": [round(dot.at[0], 3) for dot in dots],
        "y": [round(dot.at[1], 3) for dot in dots],
        "text": [dot.text for dot in dots],
        "textposition": "bottom center" if big else "middle center",
        "textfont": {"size": 12 if big else 9, **({} if big else {"color": "#ffffff"})},
        "hovertext": [dot.hover for dot in dots],
        "hoverinfo": "text",
        "customdata": [dot.link for dot in dots],
        "cliponaxis": False,
        "marker": {
            "opacity": 1,
            "color": color,
            "size": [round(dot.size, 1) for dot in dots],
            "line": {
                "width": [2.2 if dot.critical else 0.8 for dot in dots],
                "color": [_CRITICAL if dot.critical else "rgba(127,127,127,0.5)" for dot in dots],
            },
        },
    }


def _layout(dots: Sequence[_Dot]) -> dict[str, Any]:
    deep = 1 + max((dot.at[0] for dot in dots), default=0)
    low, high = min((dot.at[1] for dot in dots), default=0), max((dot.at[1] for dot in dots), default=0)
    axis = {"visible": False, "fixedrange": False, "zeroline": False}
    room = max(1.0, (high - low) * 0.06)
    return {
        "height": int(_height(low, high)),
        "xaxis": {**axis, "range": [-0.6, deep - 0.4]},
        # Turned over, so that the first node of a layer is at its top.
        "yaxis": {**axis, "range": [high + room, low - room]},
        "hovermode": "closest",
        "dragmode": "pan",
        "margin": {"l": 8, "r": 8, "t": 8, "b": 8},
        "legend": {"orientation": "h", "y": -0.02, "yanchor": "top", "x": 0},
    }


def _height(low: float, high: float) -> float:
    """Return the height of a picture of nodes between two places, in pixels."""
    return min(_MOST_HEIGHT, max(360.0, 120 + (high - low) * 34 if high - low < 21 else 300 + (high - low) * 25))


def _pixels_between(places: Iterable[Point]) -> float:
    """Return how far apart two nodes above each other are: larger ones would lie on each other."""
    ys = [y for _, y in places]
    low, high = min(ys, default=0.0), max(ys, default=0.0)
    return (_height(low, high) - 60) / (1.12 * (high - low) + 2)


def _note(drawing: Drawing) -> str:
    notes = [drawing.note] if drawing.note else []
    if drawing.critical.seconds:
        path = drawing.critical
        tasks = "1 task" if len(path.tasks) == 1 else f"{len(path.tasks)} tasks"
        notes.append(f"Critical path: {tasks}, {formatting.seconds(path.seconds)} of run time.")
    return " ".join(notes)
