"""``flow run``: a script under a configuration that it does not name itself."""

from __future__ import annotations

import os
import runpy
import sys
from types import TracebackType

import click

from flow.config_file import load_config
from flow_core.kernel.loaded import load
from flow_core.remote.tracebacks import FULL


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
    _show_only_frames_of(script)
    with load(config):
        runpy.run_path(script, run_name="__main__")


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
