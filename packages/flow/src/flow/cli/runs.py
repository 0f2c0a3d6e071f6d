"""Runs as the commands take them: by path, by name under ``--run-dir``, or by number."""

from __future__ import annotations

import json
from pathlib import Path

import click

from flow.cli.telling import say
from flow.runs.find import Run, is_directory, newest, run_at

run_dir_option = click.option(
    "--run-dir", default="runinfo", show_default=True, is_eager=True, help="Where the directories of runs are."
)
"""To be read before the runs that are named."""


def directory_of_run(run: str, top: Path) -> Path:
    """Return the directory of a run by its path, or by its name or number under ``top``.

    Raises:
        click.ClickException: it cannot be looked at: it is another user's, for one.
    """
    try:
        if run.isdecimal() and is_directory(top / f"{int(run):03d}"):
            return top / f"{int(run):03d}"
        if is_directory(top / run) and not Path(run).exists():
            return top / run
        is_directory(Path(run))  # raises now what it would later
    except OSError as error:
        raise click.ClickException(f"run {run!r} cannot be looked at: {error.strerror}: {error.filename}") from None
    return Path(run)


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


run_option = click.option("--run", "-r", help="Directory or number of the run; default: the newest.")
database_option = click.option(
    "--database", "-d", help="URI of the monitoring database; default: monitoring.db beside the run's directory."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Write JSON, for programs.")


def found_run(run: str | None, run_dir: str, *, live: bool = False) -> Run:
    """Return the run that is meant: named, or the newest; with ``live`` the newest that goes on.

    Raises:
        RunNotLive: none is named, and there is none.
        click.ClickException: the one that is named is not there.
    """
    top = Path(run_dir)
    if run is None:
        return newest(top, live=live)
    path = directory_of_run(run, top)
    if not path.is_dir():
        raise click.ClickException(f"there is no run {run!r}, neither as a directory nor under {run_dir!r}")
    return run_at(path)


def write_json(found: object) -> None:
    """Write JSON to standard output, control characters escaped."""
    say(json.dumps(found, indent=1, default=str))
