"""``flow why``: why the tasks of a run that goes on are not done."""

from __future__ import annotations

from pathlib import Path

import click

from flow.cli.runs import directory_of_run, run_dir_option
from flow.cli.telling import say
from flow.runs.find import newest
from flow_core.kernel.live import why as ask
from flow_core.printable import printable


@click.command()
@click.argument("run", required=False)
@click.argument("task", required=False, type=click.IntRange(min=0))
@click.option("--task", "-t", "number", type=click.IntRange(min=0), help="A task of the newest run that goes on.")
@run_dir_option
@click.option(
    "--timeout", type=click.FloatRange(0, 3600), default=10.0, show_default=True, help="Seconds to wait for the answer."
)
def why(run: str | None, task: int | None, number: int | None, run_dir: str, timeout: float) -> None:
    """Say why tasks of a run are not done.

    All that keeps a task is told at once: its dependencies, what is ahead of it, resources, blocks, files being moved,
    tries that failed.

    RUN is the directory of a run that goes on, or its number; without it the newest that does is asked. TASK is the
    number of an unfinished task; without it there is a line for all tasks that are alike. The run must be your own, and
    on this machine.
    """
    if task is not None and number is not None:
        raise click.UsageError("name the task once: as an argument, or with --task")
    directory = newest(Path(run_dir), live=True).path if run is None else directory_of_run(run, Path(run_dir))
    if run is None:
        say(f"run {directory}:", err=True)
    try:
        say(ask(directory, task if task is not None else number, timeout))
    except LookupError as error:
        raise click.ClickException(printable(str(error.args[0]))) from None
