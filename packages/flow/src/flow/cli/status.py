"""``flow status``: how far a run is."""

from __future__ import annotations

import click

from flow.cli.runs import database_option, found_run, json_option, run_dir_option, write_json
from flow.cli.telling import say, show
from flow.runs import text
from flow.runs.status import status_of


@click.command()
@click.argument("run", required=False)
@run_dir_option
@database_option
@json_option
@click.option("--timeout", default=10.0, show_default=True, help="Seconds to wait for the answer of the script.")
def status(run: str | None, run_dir: str, database: str | None, as_json: bool, timeout: float) -> None:
    """Say how far RUN is: its tasks by app and state, its executors and blocks, what failed.

    RUN is a run's directory or number; without it the newest run. A run that goes on is asked, which only its own user
    can, on the machine of its script; one that has ended is read from its record. Of single apps' ended tasks only runs
    with monitoring know.
    """
    found = status_of(found_run(run, run_dir), database, timeout)
    if as_json:
        write_json(found.as_json())
        return
    say(text.heading(found))
    for line in (text.task_counts(found), text.speed(found), *text.executor_lines(found)):
        if line:
            say(line)
    for line in (*found.held, *text.failure_lines(found), *([found.note] if found.note else [])):
        say(line)
    table = text.app_table(found)
    if table is not None:
        say("")
        show(table)
