"""``flow run``: a script under a configuration that it does not name itself."""

from __future__ import annotations

import os
import sys
from contextlib import nullcontext
from types import TracebackType

import click

from flow.compat import parsl
from flow.config_file import load_config
from flow.running import run_module, run_script
from flow_core.kernel.loaded import load
from flow_core.remote.tracebacks import FULL


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
        raise click.BadParameter(f"File {script!r} does not exist.", param_hint="'SCRIPT'")
    if in_parsl:
        parsl.install()
    # A script of Parsl's loads its own, and would find that one is loaded already.
    config = None if in_parsl and source is None else load_config(source or "flow.configs.local_threads")
    _show_only_frames_of(script)
    with nullcontext() if config is None else load(config):
        (run_module if as_module else run_script)(script, arguments)


def _show_only_frames_of(script: str) -> None:
    """Leave the frames that lie before the script's out of the traceback with which it ends."""
    show = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        show(kind, error.with_traceback(_from(script, trace)), error.__traceback__)

    if not os.environ.get(FULL):
        sys.excepthook = hook


def _from(script: str, trace: TracebackType | None) -> TracebackType | None:
    """Return a traceback from the script's first frame on, all of it if the script has none."""
    part = trace
    while part is not None and part.tb_frame.f_code.co_filename != script:
        part = part.tb_next
    return part or trace
