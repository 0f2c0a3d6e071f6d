"""Texts of runs and tasks for a terminal, in plain words."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from rich.table import Table

from flow.runs.status import Status
from flow_core.graph.states import State
from flow_core.interfaces.waiting import count, duration, shown_state
from flow_core.printable import printable

_COLUMNS = {
    "running": ("running", "joining"),
    "queued": ("launched",),
    "waiting": ("unsched", "pending", "staging", "fail_retryable"),
    "done": ("exec_done",),
    "remembered": ("memo_done",),
    "failed": ("failed",),
    "not run": ("dep_fail",),
    "cancelled": ("cancelled",),
}
"""Columns of the table of apps, with the states that each counts."""
STATE_NAMES = tuple(State.__members__)
_MOST_FAILURES = 5  # groups that a status names; the others are counted
_MOST_APPS = 30  # rows of the table of apps


def heading(status: Status) -> str:
    """Return one line on what the run is and how long it took."""
    if status.state == "unknown" and status.began_ns is None:
        return f"run {os.path.relpath(status.run)}: nothing is known of it: it has no run.json that can be read"
    took = "" if status.duration_s is None else f" {_FOR[status.state]} {duration(status.duration_s)}"
    where = f" on {status.host}" if status.host else ""
    who = f", by {status.user}" if status.user else ""
    process = f" (process {status.pid})" if status.pid and status.state == "running" else ""
    name = f" ({status.name})" if status.name else ""
    return (
        f"run {os.path.relpath(status.run)}{name}: {_STATES.get(status.state, status.state)}{took}{where}{process}{who}"
    )


_FOR = {"running": "for", "ended": "after", "failed": "after", "killed": "after", "unknown": "after"}
_STATES = {
    "ended": "ended",
    "failed": "ended, with failed tasks,",
    "killed": "killed: its script ended without cleaning up,",
    "unknown": "not known to go on: of another machine, or of an older Flow,",
}


def task_counts(status: Status) -> str:
    """Return the numbers of tasks in a line."""
    tasks = status.tasks
    if not tasks:
        return "tasks: nothing is recorded of them"
    parts = [(tasks["completed"], "done"), (tasks["memoized"], "from memory"), (tasks["failed"], "failed")]
    parts += [(tasks["dep_failed"], "not run for a failed dependency"), (tasks["cancelled"], "cancelled")]
    parts += [(tasks["unfinished"], "unfinished")]
    told = ", ".join(f"{number:,} {what}" for number, what in parts if number) or "none yet"
    return f"tasks: {tasks['submitted']:,}: {told}"


def speed(status: Status) -> str:
    """Return how fast tasks end, and how long the rest takes at that; empty where that says nothing."""
    rate = status.rate
    if status.state != "running" or not rate or not status.ended_tasks:
        return ""
    unfinished = status.tasks.get("unfinished", 0)
    left = f"; {duration(unfinished / rate)} left at that, if no more are called" if unfinished else ""
    return f"speed: {rate:,.3g} tasks end a second since the begin{left}"


def executor_lines(status: Status) -> list[str]:
    """Return a line an executor."""
    return [f"executor {_executor(one)}" for one in status.executors]


def _executor(one: Mapping[str, Any]) -> str:
    begin = f"{one['label']} ({one['kind']}): "
    if "error" in one:
        return begin + str(one["error"])
    slots = one["slots"]
    busy = f"{one['running'] + one['waiting']:,} tasks at it" if not slots else ""
    if slots:
        # Short tasks are not reported as started: what an executor has fills its workers first.
        at_work = min(slots, one["running"] + one["waiting"])
        behind = one["running"] + one["waiting"] - at_work
        busy = f"{at_work:,} of {slots:,} workers busy" + (f", {behind:,} tasks wait for one" if behind else "")
    blocks = ", ".join(f"{number} {name.lower()}" for name, number in one["blocks"].items())
    waits = [
        f"block {block['block']} waits: {block['reason']}"
        for block in one.get("block_list", ())
        if block["state"] == "PENDING" and block["reason"]
    ]
    return begin + "; ".join([busy, *([f"blocks: {blocks}"] if blocks else []), *waits[:3]])


def failure_lines(status: Status) -> list[str]:
    """Return a line for each of the largest groups of failures."""
    groups = status.failures
    lines = [
        f"failed: {one.count:,} x {one.app or 'others'}: {one.text or one.kind}"
        + (f" (first: task {one.first})" if one.count > 1 else f" (task {one.first})")
        for one in groups[:_MOST_FAILURES]
    ]
    if groups[_MOST_FAILURES:]:
        lines.append(f"failed: {count(len(groups) - _MOST_FAILURES, 'more kind')}: flow tasks --failed")
    return lines


def app_table(status: Status, most: int = _MOST_APPS) -> Table | None:
    """Return the table of tasks by app, with so many rows at most; None where nothing is known of apps."""
    if not status.apps:
        return None
    sums = {
        app: {name: sum(states.get(one, 0) for one in of) for name, of in _COLUMNS.items()}
        for app, states in status.apps.items()
    }
    used = [name for name in _COLUMNS if any(row[name] for row in sums.values())]
    table = Table(box=None, pad_edge=False)
    table.add_column("app", overflow="ellipsis", no_wrap=True)
    for name in used:
        table.add_column(name, justify="right")
    ordered = sorted(sums.items(), key=lambda one: -sum(one[1].values()))
    for app, row in ordered[:most]:
        table.add_row(printable(app), *(f"{row[name]:,}" if row[name] else "" for name in used))
    if ordered[most:]:
        table.add_row(f"{len(ordered) - most} more apps")
    return table


def moment(time_ns: int | None) -> str:
    """Return a local time to the second; a dash where it is not known."""
    return "-" if not time_ns else datetime.fromtimestamp(time_ns / 1e9).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def state_text(state: str) -> str:
    """Return the name of a task's state as people are shown it."""
    return shown_state(state)


def states_meant(names: Iterable[str]) -> list[str]:
    """Return the states that names mean: states themselves, as they are shown, or columns of the table of apps.

    Raises:
        ValueError: a name is none of these.
    """
    shown: dict[str, list[str]] = {}
    for state in STATE_NAMES:
        shown.setdefault(shown_state(state), []).append(state)
    found: list[str] = []
    for name in names:
        of = [name] if name in STATE_NAMES else shown.get(name) or list(_COLUMNS.get(name, ()))
        if not of:
            known = ", ".join(dict.fromkeys([*_COLUMNS, *shown]))
            raise ValueError(f"{name!r} is no state of tasks: {known}")
        found += of
    return found
