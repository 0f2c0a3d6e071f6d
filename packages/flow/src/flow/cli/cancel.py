"""``flow cancel``: cancel tasks of a run that goes on."""

from __future__ import annotations

import sys

import click

from flow.cli.runs import found_run, json_option, run_dir_option, run_option, write_json
from flow.cli.telling import say
from flow_core.kernel.live import ask

_AT_ONCE = 500  # tasks in one request; a script takes 1000
_ANSWER_S = 60.0  # seconds: executors are asked one task after the other whether each has begun


@click.command()
@click.argument("tasks", nargs=-1, required=True, type=click.IntRange(min=0), metavar="TASK...")
@click.option("--kill", is_flag=True, help="End tasks that run, too.")
@run_option
@run_dir_option
@json_option
def cancel(tasks: tuple[int, ...], kill: bool, run: str | None, run_dir: str, as_json: bool) -> None:
    """Cancel tasks, by their numbers, of a run of yours that goes on; exit code 1 if one was not cancelled.

    Tasks that wait for a cancelled one are not run either. A task that runs goes on unless --kill is given.
    """
    chosen = found_run(run, run_dir, live=True)
    found: dict[str, str] = {}
    try:
        for some in (list(tasks[begin : begin + _AT_ONCE]) for begin in range(0, len(tasks), _AT_ONCE)):
            found |= ask(chosen.path, "cancel", _ANSWER_S, tasks=some, kill=kill)
    except LookupError as error:
        raise click.ClickException(str(error.args[0])) from None
    if as_json:
        write_json(found)
    else:
        for number, how in found.items():
            say(f"task {number}: {how}")
    if any(how != "cancelled" for how in found.values()):
        sys.exit(1)
