"""``flow monitor``: the monitoring database, made again from a run's own log or brought to this version."""

from __future__ import annotations

from pathlib import Path

import click

from flow_monitor.project.rebuild import rebuild as rebuild_run, upgrade as upgrade_schema

_DATABASE = click.option(
    "--database",
    "-d",
    default=None,
    help="URI of the database; default: monitoring.db beside the run's directory, or runinfo/monitoring.db.",
)


@click.group()
def monitor() -> None:
    """Look after the monitoring database."""


@monitor.command()
@click.argument("run_dir", type=click.Path(exists=True, file_okay=False, path_type=Path))
@_DATABASE
def rebuild(run_dir: Path, database: str | None) -> None:
    """Write the run in RUN_DIR (such as runinfo/003) into the database again, from its event log."""
    endpoint = database or f"sqlite:///{run_dir.absolute().parent / 'monitoring.db'}"
    progress = rebuild_run(run_dir, endpoint)
    click.echo(f"{run_dir}: {progress.events} events written to {endpoint}")


@monitor.command()
@_DATABASE
def upgrade(database: str | None) -> None:
    """Bring the database's tables to this version."""
    endpoint = database or f"sqlite:///{Path('runinfo/monitoring.db').absolute()}"
    upgrade_schema(endpoint)
    click.echo(f"{endpoint} is up to date")
