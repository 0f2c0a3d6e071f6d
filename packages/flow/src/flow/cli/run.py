"""``flow run``: a script under a configuration that it does not name itself."""

from __future__ import annotations

import os
from contextlib import nullcontext

import click

from flow.compat import parsl
from flow.config_file import load_config
from flow.running import missing_module, run_module, run_script
from flow_core.kernel.loaded import load


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option(
    "--config",
    "-c",
    "source",
    help="A Python file or a module that binds a Config to the name `config`. [default: flow.configs.local_threads]",
)
@click.option(
    "--parsl",
    "in_parsl",
    is_flag=True,
    help="`import parsl` is Flow's; the script loads its own configuration, unless --config is given.",
)
@click.option("--module", "-m", "as_module", is_flag=True, help="SCRIPT is the name of a module, as with `python -m`.")
@click.argument("script")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def run(source: str | None, in_parsl: bool, as_module: bool, script: str, arguments: tuple[str, ...]) -> None:
    """Run SCRIPT with its ARGUMENTS while the configuration is loaded; the script needs no `flow.load`."""
    if not as_module and not os.path.isfile(script):
        what = f"{script!r} is not a file." if os.path.exists(script) else f"File {script!r} does not exist."
        raise click.BadParameter(what, param_hint="'SCRIPT'")
    if in_parsl:
        parsl.install()
    if as_module and (missing := missing_module(script)):
        raise click.BadParameter(f"There is no module {missing!r}.", param_hint="'SCRIPT'")
    # A script of Parsl's loads its own, and would find that one is loaded already.
    config = None if in_parsl and source is None else load_config(source or "flow.configs.local_threads")
    with nullcontext() if config is None else load(config):
        (run_module if as_module else run_script)(script, arguments)
