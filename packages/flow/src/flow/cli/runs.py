"""Runs as the commands take them: by path, by name under ``--run-dir``, or by number."""

from __future__ import annotations

from pathlib import Path

import click

run_dir_option = click.option(
    "--run-dir", default="runinfo", show_default=True, is_eager=True, help="Where the directories of runs are."
)
"""To be read before the runs that are named."""


def directory_of_run(run: str, top: Path) -> Path:
    """Return the directory of a run by its path, or by its name or number under ``top``."""
    if run.isdecimal() and (top / f"{int(run):03d}").is_dir():
        return top / f"{int(run):03d}"
    return top / run if (top / run).is_dir() and not Path(run).exists() else Path(run)


class RunPath(click.ParamType):  # type: ignore[type-arg]  # generic in new versions of click only
    """A run, or what is to be found in its place, such as a checkpoint."""

    name = "run"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return a path that exists; else fail, and say where was looked."""
        top = Path(str(ctx.params.get("run_dir", "runinfo") if ctx is not None else "runinfo"))
        path = directory_of_run(str(value), top)
        if not path.exists():
            self.fail(f"there is no {str(value)!r}, neither as a path nor as a run under {str(top)!r}", param, ctx)
        return str(path)
