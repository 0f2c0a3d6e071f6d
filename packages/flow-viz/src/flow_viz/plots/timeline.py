"""The timeline: a lane a worker, a bar a try; and how many tries of each app ran at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flow_monitor.queries.records import Span
from flow_monitor.queries.timeline import Timeline
from flow_viz import formatting
from flow_viz.plots.colors import app_colors
from flow_viz.plots.figure import Figure, Trace, escape, milliseconds

_FAILED = "#e5484d"
# Verdicts of tries; the last is of those that were told that their block ends, and run again in another one.
_NOT_FAILED = ("", "OK", "REQUEUED")


def timeline_figure(timeline: Timeline, apps: Mapping[str, str], now_ns: int, run_url: str) -> Figure:
    """Return the bars.

    Args:
        timeline: Tries.
        apps: Colours of apps.
        now_ns: Where bars of tries that still run end.
        run_url: Address of the run's pages, with a slash.
    """
    lanes = sorted({span.lane for span in timeline.spans}, key=_lane_order)
    names = {span.app for span in timeline.spans}
    colors = {**app_colors(names), **apps}
    # of many tries, wider edges would make failures look more frequent than they are
    failed_width = 2.0 if timeline.complete else 0.5
    traces = [
        _bars(app, colors[app], [span for span in timeline.spans if span.app == app], now_ns, run_url, failed_width)
        for app in sorted(names)
    ]
    layout: dict[str, Any] = {
        "barmode": "overlay",
        "bargap": 0.25,
        # 24 pixels a lane; above 1600 in all, lanes get thinner and are zoomed.
        "height": int(min(1600, max(280, 130 + 24 * len(lanes)))),
        "xaxis": {"type": "date", "title": {"text": "UTC"}},
        "yaxis": {
            "type": "category",
            "categoryorder": "array",
            "categoryarray": [escape(lane) for lane in lanes],
            "autorange": "reversed",
            "automargin": True,
        },
        "hovermode": "closest",
        "dragmode": "zoom",
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
    }
    note = (
        ""
        if timeline.complete
        else f"A selection of {len(timeline.spans):,} tries, spread over the time: there were more between them, and "
        "workers were busier than it looks. Drag over a shorter time to see all of it."
    )
    return Figure(traces, layout, note)


def _bars(app: str, color: str, spans: Sequence[Span], now_ns: int, run_url: str, failed_width: float) -> Trace:
    # The clocks of a node and of this machine may differ: a bar never ends before it begins.
    ends = [span.end or max(now_ns, span.start) for span in spans]
    return {
        "type": "bar",
        "orientation": "h",
        "name": escape(app, 40),
        "y": [escape(span.lane) for span in spans],
        "base": [milliseconds(span.start) for span in spans],
        "x": [round((end - span.start) / 1e6, 3) for span, end in zip(spans, ends, strict=True)],
        "marker": {
            "color": color,
            "opacity": [0.55 if span.end is None else 0.92 for span in spans],
            "line": {
                "color": [color if span.verdict in _NOT_FAILED else _FAILED for span in spans],
                "width": [0.5 if span.verdict in _NOT_FAILED else failed_width for span in spans],
            },
        },
        "hovertext": [_hover(span, end) for span, end in zip(spans, ends, strict=True)],
        "hoverinfo": "text",
        "customdata": [f"{run_url}task/{span.task_id}" for span in spans],
    }


def _hover(span: Span, end: int) -> str:
    took = formatting.duration(end - span.start)
    how = "running" if span.end is None else span.verdict.lower().replace("_", " ") or "ended"
    again = f", try {span.try_id}" if span.try_id else ""
    until = "now" if span.end is None else formatting.clock(span.end)
    return (
        f"<b>{escape(span.app)}</b> · task {span.task_id}{again}<br>{escape(span.lane)}<br>"
        f"{formatting.clock(span.start)} \u2013 {until} ({took})<br>{escape(how)}"
    )


def _lane_order(lane: str) -> tuple[str, int]:
    host, _, worker = lane.rpartition(" / w")
    # By number, so that worker 10 comes after worker 9.
    return host, int(worker) if worker.lstrip("-").isdecimal() else 0


def running_figure(times: Sequence[int], counts: Mapping[str, tuple[float, ...]], apps: Mapping[str, str]) -> Figure:
    """Return how many tries of each app ran over time, stacked: means over bins, drawn in steps."""
    colors = {**app_colors(counts), **apps}
    x = [milliseconds(time) for time in times]
    traces: list[Trace] = [
        {
            "type": "scatter", "mode": "lines", "name": escape(app, 40), "x": x, "y": list(counts[app]),
            "stackgroup": "apps", "line": {"shape": "hv", "width": 0, "color": colors[app]},
            "hovertemplate": "%{y:.3~f} running<extra>%{fullData.name}</extra>",
        }
        for app in sorted(counts)
    ]  # fmt: skip
    layout = {
        "height": 260,
        "xaxis": {"type": "date"},
        "yaxis": {"title": {"text": "running tasks"}, "rangemode": "tozero"},
        "hovermode": "x unified",
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
    }
    return Figure(traces, layout)
