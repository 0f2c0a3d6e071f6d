"""``flow blocks``: the blocks of a run."""

from __future__ import annotations

import click
from rich.table import Table

from flow.cli.runs import database_option, found_run, json_option, run_dir_option, write_json
from flow.cli.telling import row, say, show
from flow.runs.blocks import BlockRow, list_blocks
from flow_core.interfaces.waiting import duration


@click.command()
@click.argument("run", required=False)
@run_dir_option
@database_option
@json_option
def blocks(run: str | None, run_dir: str, database: str | None, as_json: bool) -> None:
    """List the blocks of RUN, by default the newest: job, state with the scheduler's reason, workers."""
    found = list_blocks(found_run(run, run_dir), database)
    if as_json:
        write_json([one.as_json() for one in found])
        return
    if not found:
        say("it has no blocks: its executors are threads or pools of this machine, or it has asked for none yet")
        return
    table = Table("executor", "block", "job", "state", "workers", "age", "reason", box=None)
    for one in found:
        row(table, *_cells(one))
    show(table)


def _cells(one: BlockRow) -> tuple[str, ...]:
    workers = "" if one.workers is None else str(one.workers)
    age = "" if one.age_s is None else duration(one.age_s)
    return one.executor, one.block, one.job_id, one.state, workers, age, one.reason
