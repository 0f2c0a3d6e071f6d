"""The layout that all pages of one run share: the run, its tabs, and whether the page keeps itself up to date."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from flask import abort, render_template, request, url_for

from flow_monitor.queries import workflows
from flow_monitor.queries.database import Connection
from flow_monitor.queries.records import RunState, Workflow

_COMES_BACK_NS = 3600 * 1_000_000_000  # one hour, for a laptop that sleeps; only the magnitude matters

TABS = (
    ("summary.page", "Summary"),
    ("graph.page", "Graph"),
    ("tasks.page", "Tasks"),
    ("timeline.page", "Timeline"),
    ("resources.page", "Resources"),
    ("blocks.page", "Blocks and nodes"),
)


@dataclass(frozen=True, slots=True)
class Tab:
    """A tab of a run's pages."""

    title: str
    url: str
    here: bool


def show(template: str, connection: Connection, run_id: str, tab: str, **values: Any) -> str:
    """Render a page of a run. Raises NoSuchRecord."""
    run = workflows.one(connection, run_id)
    tabs = [Tab(title, url_for(name, run_id=run_id), name == tab) for name, title in TABS]
    return render_template(template, run=run, tabs=tabs, live=is_live(run), follow=may_come_back(run), **values)


def is_live(run: Workflow) -> bool:
    """Return whether a run is known to go on."""
    return run.state is RunState.RUNNING


def may_come_back(run: Workflow) -> bool:
    """Return whether a silent run sent its last event so lately that its machine may only be asleep."""
    heard = run.time_heard or 0
    return run.state is RunState.SILENT and time.time_ns() - heard < _COMES_BACK_NS


def parse_number(name: str, default: int, least: int, most: int) -> int:
    """Return a number of the address, within bounds; answers 400 where it is none."""
    text = request.args.get(name, "")
    if not text:
        return default
    # 18 digits fit into 64 bits; int() of a text of megabytes would take long.
    if not text.lstrip("-").isdecimal() or len(text) > 18:
        abort(400, f"{name}={text[:40]} is no number")
    return max(least, min(most, int(text)))
