"""The ``flow`` command: runs scripts under a configuration, asks them, looks after checkpoints and monitoring data."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import cast

import click

import flow
from flow.cli.telling import say
from flow_core.errors import FlowError

_COMMANDS = (
    "blocks",
    "cache",
    "cancel",
    "checkpoint",
    "files",
    "logs",
    "ls",
    "monitor",
    "nodes",
    "run",
    "scale",
    "show",
    "status",
    "tasks",
    "top",
    "why",
)
"""Each is in a module of its own name."""


class Commands(click.Group):
    """Loads a command when it is asked for: that for monitoring data takes longer than all others together."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command by its name, None if there is none."""
        if cmd_name not in _COMMANDS:
            return None
        return cast("click.Command", getattr(import_module(f"flow.cli.{cmd_name}"), cmd_name))


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(flow.__version__, prog_name="flow")
def commands() -> None:
    """Run Flow scripts and look after what their runs leave behind."""


def main(arguments: list[str] | None = None) -> None:
    """Run the command; errors of Flow are one line on standard error and exit code 1."""
    try:
        commands.main(args=arguments, prog_name="flow", standalone_mode=True)
    except FlowError as error:
        say(f"flow: {error}", err=True)
        sys.exit(1)
