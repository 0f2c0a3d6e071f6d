"""``flow tasks``: a list of a run's tasks."""

from __future__ import annotations

from dataclasses import asdict

import click
from rich.table import Table

from flow.cli.runs import database_option, found_run, json_option, run_dir_option, write_json
from flow.cli.telling import row, say, show
from flow.runs.status import status_of
from flow.runs.tasks import TaskRow, list_tasks
from flow.runs.text import failure_lines, moment, state_text, states_meant


@click.command()
@click.argument("run", required=False)
@click.option("--failed", is_flag=True, help="Only tasks that failed, or were not run since others failed.")
@click.option("--app", default="", help="Only tasks of this app.")
@click.option("--state", "states", multiple=True, help="Only tasks in this state: running, queued, waiting, done, ...")
@click.option("--limit", "-n", default=50, show_default=True, type=click.IntRange(1, 10_000), help="Most tasks listed.")
@click.option("--offset", default=0, type=click.IntRange(min=0), help="Tasks to pass over.")
@run_dir_option
@database_option
@json_option
def tasks(
    run: str | None,
    failed: bool,
    app: str,
    states: tuple[str, ...],
    limit: int,
    offset: int,
    run_dir: str,
    database: str | None,
    as_json: bool,
) -> None:
    """List tasks of RUN, by default the newest run, in the order of their numbers.

    Ended tasks are known of runs with monitoring; of others the unfinished ones, while the script goes on.
    """
    try:
        wanted = states_meant([*states, *(("failed", "dep_fail") if failed else ())])
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    chosen = found_run(run, run_dir)
    found = list_tasks(chosen, database, app, tuple(wanted), offset, limit)
    if as_json:
        write_json(asdict(found))
        return
    if found.unfinished_only and failed:
        say("this run has no monitoring, so ended tasks are known in groups only:")
        for line in failure_lines(status_of(chosen)) or ["no task has failed"]:
            say(line)
        return
    if found.tasks:
        table = Table("task", "app", "state", "since", "ran", "tries", "executor", "error", box=None)
        for one in found.tasks:
            row(table, *_cells(one))
        show(table)
    left = found.total - offset - len(found.tasks)
    if not found.tasks or left > 0 or found.unfinished_only:
        what = "unfinished task" if found.unfinished_only else "task"
        more = f"; {left:,} more: --limit, --offset" if left > 0 else ""
        note = " (ended ones are not recorded without monitoring)" if found.unfinished_only else ""
        say(f"{found.total:,} {what}{'' if found.total == 1 else 's'}{note}{more}")


def _cells(one: TaskRow) -> tuple[str, ...]:
    ran = "" if one.run_time_s is None else f"{one.run_time_s:,.2f} s"
    error = one.error.splitlines()[0] if one.error else ""
    tries = str(one.tries) if one.tries else ""
    return str(one.task), one.app, state_text(one.state), moment(one.began_ns), ran, tries, one.executor, error
