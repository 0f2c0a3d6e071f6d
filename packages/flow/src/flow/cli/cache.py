"""``flow cache``: why calls were run again."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import click

from flow.cli.runs import RunPath, run_dir_option
from flow_core.checkpoint.find import get_all_records
from flow_core.interfaces.memoizer import MissReason
from flow_core.memo.explain import why as explain_misses


@click.group()
def cache() -> None:
    """Ask about remembered results."""


@cache.command()
@click.argument("run", type=RunPath())
@click.option("--earlier", "-e", multiple=True, type=RunPath(), help="A checkpoint it could have used.")
@click.option("--app", help="Only tasks of this app.")
@run_dir_option
@click.option("--all", "every", is_flag=True, help="One line a task, not one a reason.")
def why(run: str, earlier: tuple[str, ...], app: str | None, run_dir: str, every: bool) -> None:
    """Say, for the calls that RUN (its directory, number or checkpoint) had to run, what was not the same as before."""
    known = list(earlier) or _before(run, get_all_records(run_dir))
    misses = explain_misses(run, known, app)
    if not misses:
        click.echo(f"{run}: no cached app had to be run" + (f" of the name {app!r}" if app else ""))
    elif every:
        for miss in misses:
            click.echo(f"task {miss.task_id}: {miss.reason.summary}")
    else:
        reasons = Counter((miss.app, _told(miss.reason)) for miss in misses)
        for (name, changed), count in reasons.most_common():
            click.echo(f"{count} x {name}: {changed}")


def _told(reason: MissReason) -> str:
    """Return a reason without what differs from task to task."""
    if reason.failed:
        since = f"; changed since then: {', '.join(reason.changed)}" if reason.changed else ""
        return f"the earlier call failed ({reason.failed.partition(':')[0]}), and failures are not kept{since}"
    if reason.changed:
        return ", ".join(reason.changed)
    if reason.nearest is None:
        return "nothing stored"
    return "nothing changed; the run did not load their checkpoint (checkpoint_files=...), or their outputs were gone"


def _before(run: str, checkpoints: list[str]) -> list[str]:
    """Return the checkpoints of the runs before this one; all, if it is not among them."""
    place = Path(run).resolve()
    for index, checkpoint in enumerate(checkpoints):
        if place in (Path(checkpoint).resolve(), Path(checkpoint).resolve().parent):
            return checkpoints[:index]
    return checkpoints
