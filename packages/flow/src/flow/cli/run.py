"""``flow run``: a script under a configuration that it does not name itself."""

from __future__ import annotations

import os
import runpy
import sys

import click

from flow.config_file import load_config
from flow_core.kernel.loaded import load


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option(
    "--config",
    "-c",
    "source",
    default="flow.configs.local_threads",
    show_default=True,
    help="A Python file or a module that binds a Config to the name `config`.",
)
@click.argument("script", type=click.Path(exists=True, dir_okay=False))
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def run(source: str, script: str, arguments: tuple[str, ...]) -> None:
    """Run SCRIPT with its ARGUMENTS while the configuration is loaded; the script needs no `flow.load`."""
    config = load_config(source)
    sys.argv = [script, *arguments]
    sys.path.insert(0, os.path.dirname(os.path.abspath(script)))
    with load(config):
        runpy.run_path(script, run_name="__main__")
