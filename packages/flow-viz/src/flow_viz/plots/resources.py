"""Plots of the use of CPU, memory, disk and network over time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flow_monitor.queries.records import TaskSample, Usage
from flow_viz.formatting import seconds
from flow_viz.plots.colors import app_colors
from flow_viz.plots.figure import Figure, Trace, escape, milliseconds

_GIB = 1 << 30
_MIB = 1 << 20
_DASHES = ("solid", "dot", "dash", "dashdot")
"""Of the lines of a task's tries, one after the other."""
# Names and seconds of units; a unit is used from three of it on. Plotly's own "10k" seconds said little.
_UNITS = (("hours", 3600), ("minutes", 60))
_LEGEND = {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0}


def _groups(usage: Sequence[Usage]) -> list[str]:
    return sorted({one.group for one in usage})


def cpu_figure(usage: Sequence[Usage], apps: Mapping[str, str]) -> Figure:
    """Return CPU use, stacked by group. ``apps``: colours of groups that are apps."""
    return _stacked(usage, [one.cpu_cores for one in usage], "cores in use", "%{y:.2f} cores", apps)


def memory_figure(usage: Sequence[Usage], apps: Mapping[str, str]) -> Figure:
    """Return resident memory in GiB, stacked by group. ``apps``: colours of groups that are apps."""
    return _stacked(usage, [one.memory / _GIB for one in usage], "memory, GiB", "%{y:.2f} GiB", apps)


def _stacked(
    usage: Sequence[Usage], values: Sequence[float], title: str, hover: str, apps: Mapping[str, str]
) -> Figure:
    groups = _groups(usage)
    colors = {**app_colors(groups), **apps}
    # All groups get all times: a bin without a row is 0, not a gap to draw a line across.
    begins = sorted({one.time_ns for one in usage})
    # the last bin is drawn to its end: what is under the line is what was used
    times = [*begins, begins[-1] + usage[-1].width_ns] if begins else []
    table = {(one.group, one.time_ns): value for one, value in zip(usage, values, strict=True)}
    traces: list[Trace] = [
        {
            "type": "scatter", "mode": "lines", "name": escape(group or "all tasks", 40),
            "x": [milliseconds(time) for time in times],
            "y": [round(table.get((group, time), 0.0), 6) for time in (*begins, *begins[-1:])],
            "stackgroup": "all", "line": {"width": 0, "color": colors[group], "shape": "hv"},
            "hovertemplate": f"{hover}<extra>%{{fullData.name}}</extra>",
        }
        for group in groups
    ]  # fmt: skip
    return Figure(traces, _over_time(title, legend=len(groups) > 1))


def node_cpu_figure(usage: Sequence[Usage]) -> Figure:
    """Return the load of whole nodes in per cent, a line a node."""
    return _lines(usage, [100 * one.cpu_cores for one in usage], "node CPU, %", "%{y:.0f} %", [0, 100])


def node_memory_figure(usage: Sequence[Usage]) -> Figure:
    """Return the memory in use on whole nodes, a line a node."""
    return _lines(usage, [one.memory / _GIB for one in usage], "node memory, GiB", "%{y:.1f} GiB", None)


def _lines(usage: Sequence[Usage], values: Sequence[float], title: str, hover: str, span: list[float] | None) -> Figure:
    colors = app_colors(_groups(usage))
    traces: list[Trace] = []
    for group, color in colors.items():
        mine = [(one.time_ns, value) for one, value in zip(usage, values, strict=True) if one.group == group]
        traces.append({
            "type": "scatter", "mode": "lines", "name": escape(group or "?", 40),
            "x": [milliseconds(time) for time, _ in mine], "y": [round(value, 3) for _, value in mine],
            "line": {"width": 1.6, "color": color},
            "hovertemplate": f"{hover}<extra>%{{fullData.name}}</extra>",
        })  # fmt: skip
    layout = _over_time(title, legend=True)
    if span is not None:
        layout["yaxis"]["range"] = span
    return Figure(traces, layout)


def task_figure(samples: Sequence[TaskSample]) -> Figure:
    """Return CPU and memory of one task; a line a try, memory on the right axis."""
    traces: list[Trace] = []
    tries = sorted({sample.try_id or 0 for sample in samples})
    for try_id in tries:
        mine = [sample for sample in samples if (sample.try_id or 0) == try_id]
        x = [milliseconds(sample.time_ns) for sample in mine]
        again = f", try {try_id}" if len(tries) > 1 else ""
        dash = _DASHES[try_id % len(_DASHES)]
        traces.append({
            "type": "scatter", "mode": "lines+markers", "name": f"CPU{again}", "x": x,
            "y": [round(sample.cpu_percent, 1) for sample in mine],
            "line": {"color": "#4c78d8", "width": 1.8, "dash": dash}, "marker": {"size": 4},
            "hovertemplate": "%{y:.0f} % CPU<extra></extra>",
        })  # fmt: skip
        traces.append({
            "type": "scatter", "mode": "lines+markers", "name": f"memory{again}", "x": x, "yaxis": "y2",
            "y": [round(sample.memory / _MIB, 1) for sample in mine],
            "line": {"color": "#f08c3b", "width": 1.8, "dash": dash}, "marker": {"size": 4},
            "hovertemplate": "%{y:.0f} MiB<extra></extra>",
        })  # fmt: skip
    layout = _over_time("CPU, %", legend=True)
    layout["margin"] = {"l": 60, "r": 70, "t": 36, "b": 40}
    layout["yaxis2"] = {
        "title": {"text": "memory, MiB"}, "overlaying": "y", "side": "right", "rangemode": "tozero", "showgrid": False,
        "tickmode": "auto",
    }  # fmt: skip
    return Figure(traces, layout)


_FLOWS = (
    ("disk read", "disk_read", "#4c78d8"),
    ("disk written", "disk_write", "#2fa77a"),
    ("network sent", "net_sent", "#f08c3b"),
    ("network received", "net_received", "#b65fcf"),
)


def task_flow_figure(samples: Sequence[TaskSample]) -> Figure:
    """Return the disk and network traffic of a task so far, in MiB; quantities without samples have no line."""
    traces: list[Trace] = []
    tries = sorted({sample.try_id or 0 for sample in samples})
    for try_id in tries:
        mine = [sample for sample in samples if (sample.try_id or 0) == try_id]
        again = f", try {try_id}" if len(tries) > 1 else ""
        for name, field, color in _FLOWS:
            known = [(sample.time_ns, getattr(sample, field)) for sample in mine if getattr(sample, field) is not None]
            if known:
                traces.append({
                    "type": "scatter", "mode": "lines+markers", "name": f"{name}{again}",
                    "x": [milliseconds(time) for time, _ in known], "y": [round(value / _MIB, 3) for _, value in known],
                    "line": {"color": color, "width": 1.8, "dash": _DASHES[try_id % len(_DASHES)]},
                    "marker": {"size": 4}, "hovertemplate": f"%{{y:.2f}} MiB {name}<extra></extra>",
                })  # fmt: skip
    return Figure(traces, _over_time("MiB so far", legend=True))


def app_cpu_figure(names: Sequence[str], cpu_s: Sequence[float], run_s: Sequence[float]) -> Figure:
    """Return CPU time beside run time, summed by app."""
    labels = [escape(name, 40) for name in names]
    most = max((*cpu_s, *run_s), default=0.0)
    unit, length = next((one for one in _UNITS if most >= 3 * one[1]), ("seconds", 1))
    traces: list[Trace] = [
        {"type": "bar", "name": name, "x": labels, "y": [round(v / length, 4) for v in values],
         # 0 means that there was no sample: a time that was not measured once looked like no use at all.
         "hovertext": [seconds(v) if v else "not measured" for v in values], "marker": {"color": color},
         "hovertemplate": "%{hovertext}<extra>%{fullData.name}</extra>"}
        for name, values, color in (("run time", run_s, "#4c78d8"), ("CPU time", cpu_s, "#2fa77a"))
    ]  # fmt: skip
    layout = {"height": 280, "barmode": "group", "bargap": 0.3, "yaxis": {"title": {"text": f"{unit}, all tries"}},
              "legend": _LEGEND}  # fmt: skip
    return Figure(traces, layout)


def _over_time(title: str, *, legend: bool) -> dict[str, Any]:
    return {
        "height": 280,
        "xaxis": {"type": "date"},
        "yaxis": {"title": {"text": title}, "rangemode": "tozero"},
        "hovermode": "x unified",
        "showlegend": legend,
        "legend": _LEGEND,
    }
