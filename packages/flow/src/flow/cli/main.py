"""The ``flow`` command: runs scripts under a configuration, asks them, looks after checkpoints and monitoring data."""

from __future__ import annotations

import sys

import click

import flow
from flow.cli.cache import cache
from flow.cli.checkpoint import checkpoint
from flow.cli.monitor import monitor
from flow.cli.run import run
from flow.cli.why import why
from flow_core.errors import FlowError


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(flow.__version__, prog_name="flow")
def commands() -> None:
    """Run Flow scripts and look after what their runs leave behind."""


for _command in (run, why, checkpoint, cache, monitor):
    commands.add_command(_command)


def main(arguments: list[str] | None = None) -> None:
    """Run the command; errors of Flow are one line on standard error and exit code 1."""
    try:
        commands.main(args=arguments, prog_name="flow", standalone_mode=True)
    except FlowError as error:
        click.echo(f"flow: {error}", err=True)
        sys.exit(1)
