"""Colours of states and apps, distinguishable on light and on dark ground."""

from __future__ import annotations

from collections.abc import Iterable
from zlib import crc32

from flow_monitor.queries import workflows
from flow_monitor.queries.database import Connection

_STATES = {
    "unsched": "#94a3b8",
    "pending": "#94a3b8",
    "staging": "#a78bfa",
    "launched": "#eab308",
    "running": "#3b82f6",
    "at_executors": "#3b82f6",
    "joining": "#06b6d4",
    "exec_done": "#22a565",
    "memo_done": "#14b8a6",
    "failed": "#e5484d",
    "dep_fail": "#f08c3b",
    "fail_retryable": "#f472b6",
    "cancelled": "#64748b",
}
_APPS = (
    "#4c78d8", "#f08c3b", "#2fa77a", "#d1558f", "#8b6fd6", "#b8a028", "#29a8c4", "#e0605e", "#7d9a3f", "#a1715a",
    "#5b8def", "#c27ad0", "#e3a53a", "#58b368", "#8593a8",
)  # fmt: skip


def state_color(name: str) -> str:
    """Return the colour of a task's state."""
    return _STATES.get(name, "#94a3b8")


def app_colors(names: Iterable[str]) -> dict[str, str]:
    """Return a colour for each app: in the order of their names while they last, then by name alone."""
    # By name, not by first use: an app has the same colour on each page, whatever part of the run the page shows.
    ordered = sorted(set(names))
    return {name: _APPS[at] if at < len(_APPS) else _by_name(name) for at, name in enumerate(ordered)}


def _by_name(name: str) -> str:
    # crc32, as Python's hash of a text differs from process to process, and so would the colour.
    return f"hsl({crc32(name.encode('utf-8', 'replace')) % 360},50%,55%)"


def run_colors(connection: Connection, run_id: str) -> dict[str, str]:
    """Return the colours of a run's apps: the same on all its pages."""
    return app_colors(app.name for app in workflows.apps(connection, run_id))
