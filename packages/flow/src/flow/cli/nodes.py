"""``flow nodes``: which nodes get no tasks since they failed what others run, and letting them have tasks again."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import click

from flow.cli.telling import say
from flow_executors.client.node_memory import NodeMemory

_WHERE = click.option("--run-dir", default="runinfo", show_default=True, help="Directory that holds the runs.")


@click.group(invoke_without_command=True)
@_WHERE
@click.pass_context
def nodes(ctx: click.Context, run_dir: str) -> None:
    """List the nodes that are held, or free some."""
    if ctx.invoked_subcommand is None:
        _list(run_dir)


def _list(run_dir: str) -> None:
    try:
        found = NodeMemory(Path(run_dir)).entries()
    except OSError as error:
        raise click.ClickException(str(error)) from None
    if not found:
        say(f"no node is held in {run_dir}")
        return
    # Lines and no table: the reason is what matters, and would be broken into a narrow column.
    for one in sorted(found, key=lambda entry: (entry.executor, entry.node)):
        say(f"{one.node} of {one.executor}, from {_moment(one.since)} to {_moment(one.until)}: {one.why}")


@nodes.command()
@click.argument("names", nargs=-1, metavar="NODE...")
@click.option("--all", "everything", is_flag=True, help="Free all that are held.")
@click.option("--executor", help="Only for the executor of this label; default: for all.")
@_WHERE
def free(names: tuple[str, ...], everything: bool, executor: str | None, run_dir: str) -> None:
    """Let nodes have tasks again; runs that go on hear of it within a second or two."""
    if not names and not everything:
        raise click.UsageError("name the nodes, or say --all")
    memory = NodeMemory(Path(run_dir))
    try:
        chosen = [one.node for one in memory.entries()] if everything else list(names)
        gone = memory.remove(chosen, executor) if chosen else []
    except FileNotFoundError:
        raise click.ClickException(f"there is no directory {run_dir}: say --run-dir") from None
    except OSError as error:
        raise click.ClickException(str(error)) from None
    for one in gone:
        say(f"node {one.node} gets tasks of {one.executor} again")
    missing = [name for name in names if name not in {one.node for one in gone}]
    if missing:
        raise click.ClickException(f"not held in {run_dir}: {', '.join(missing)}")


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M")
