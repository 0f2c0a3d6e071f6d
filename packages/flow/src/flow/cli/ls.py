"""``flow ls``: the runs under a directory."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click
from rich.table import Table

from flow.cli.runs import json_option, write_json
from flow.cli.telling import row, say, show
from flow.runs.find import RUNNING, UNKNOWN, runs_under
from flow.runs.status import Status, status_of
from flow.runs.text import moment
from flow_core.errors import RunNotLive
from flow_core.interfaces.waiting import duration

_ASK_S = 2.0  # seconds for a script to answer: one that does not must not hold up the list


@click.command()
@click.option("--run-dir", default="runinfo", show_default=True, help="Where the directories of runs are.")
@click.option("--limit", "-n", default=20, show_default=True, type=click.IntRange(min=1), help="Most runs listed.")
@json_option
def ls(run_dir: str, limit: int, as_json: bool) -> None:
    """List runs, the newest first: whether each goes on, and how many tasks it had.

    Runs that go on are asked for it; runs that ended have it in their record. A run that was killed has no numbers
    unless it had monitoring.
    """
    found = runs_under(Path(run_dir))
    runs = []
    for run in found[:limit]:
        try:
            runs.append(status_of(run, timeout_s=_ASK_S))
        except RunNotLive as error:
            # Its record and its database tell what they can.
            known = status_of(replace(run, state=UNKNOWN), timeout_s=_ASK_S)
            runs.append(replace(known, state=RUNNING, note=str(error)))
    if as_json:
        write_json([one.as_json() for one in runs])
        return
    if not runs:
        say(f"there are no runs under {run_dir}: say where runs are with --run-dir")
        return
    table = Table("run", "state", "began", "took", "tasks", "failed", "unfinished", "name", box=None)
    for one in runs:
        row(table, *_cells(one))
    show(table)
    if found[limit:]:
        say(f"and {len(found) - limit} older ones: --limit")


def _cells(one: Status) -> tuple[str, ...]:
    took = "-" if one.duration_s is None else duration(one.duration_s)
    counts = [f"{one.tasks[name]:,}" if one.tasks else "-" for name in ("submitted", "failed", "unfinished")]
    state = "not answering" if one.state == RUNNING and not one.executors else one.state
    return (Path(one.run).name, state, moment(one.began_ns), took, *counts, one.name)
