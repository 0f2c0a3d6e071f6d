"""``flow cache``: why calls were run again."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import click

from flow.cli.runs import RunPath, run_dir_option
from flow.cli.telling import say
from flow_core.checkpoint.find import get_all_records
from flow_core.interfaces.memoizer import MissReason
from flow_core.memo.explain import why as explain_misses


@click.group()
def cache() -> None:
    """Ask about remembered results."""


@cache.command()
@click.argument("run", type=RunPath(), required=False)
@click.option("--earlier", "-e", multiple=True, type=RunPath(), help="A checkpoint it could have used.")
@click.option("--app", help="Only tasks of this app.")
@run_dir_option
@click.option("--all", "every", is_flag=True, help="One line a task, not one a reason.")
def why(run: str | None, earlier: tuple[str, ...], app: str | None, run_dir: str, every: bool) -> None:
    """Say, for the calls that a run had to run, what was not the same as before.

    RUN is its directory, number or checkpoint; without it the newest run.
    """
    if run is None:
        run = _newest(run_dir)
        say(f"{run}:")
    known = list(earlier) or _before(run, get_all_records(run_dir))
    misses = explain_misses(run, known, app)
    if not misses:
        named = f" of the name {app!r}" if app else ""
        say(f"{run}: no call of a cached app{named} was run whose result is remembered since; of calls that failed, or")
        say("whose results could not be remembered, nothing is known here: flow.log of the run names those")
    elif every:
        for miss in misses:
            say(f"task {miss.task_id}: {miss.reason.summary}")
    else:
        reasons = Counter((miss.app, _reason_text(miss.reason)) for miss in misses)
        for (name, changed), count in reasons.most_common():
            say(f"{count} x {name}: {changed}")


def _newest(run_dir: str) -> str:
    """Return the directory of the newest run: also if it has remembered nothing, which is said then."""
    numbers = [path.name for path in Path(run_dir).glob("*") if path.name.isdecimal() and path.is_dir()]
    if not numbers:
        raise click.UsageError(f"there is no run under {run_dir!r}: name one, or its directory by --run-dir")
    return str(Path(run_dir) / max(numbers, key=int))


def _reason_text(reason: MissReason) -> str:
    """Return a reason without what differs from task to task."""
    if reason.failed and reason.other_call:
        kind = reason.failed.partition(":")[0]
        return f"not run before; the nearest call, which failed ({kind}), differs in: {reason.changes}"
    if reason.failed:
        since = f"; changed since then: {reason.changes}" if reason.changed else ""
        return f"the earlier call failed ({reason.failed.partition(':')[0]}), and failures are not kept{since}"
    if reason.changed:
        return reason.changes
    if reason.nearest is None:
        return "nothing stored"
    if reason.again:
        return f"nothing changed, but {reason.again.partition(':')[0]}"
    return "nothing changed; the run did not load their checkpoint (checkpoint_files=...)"


def _before(run: str, checkpoints: list[str]) -> list[str]:
    """Return the checkpoints of the runs before this one; all, if it is not among them."""
    place = Path(run).resolve()
    for index, checkpoint in enumerate(checkpoints):
        if place in (Path(checkpoint).resolve(), Path(checkpoint).resolve().parent):
            return checkpoints[:index]
    return checkpoints
