"""``flow files``: what was fetched by URL and is kept for later runs."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import click
from rich.filesize import decimal
from rich.table import Table

from flow.cli.telling import row, say, show
from flow_staging.kept import KeptFile, clear as clear_kept, kept, place

_DAY_S = 86_400.0
_directory = click.option(
    "--directory",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where it is kept, if not where FLOW_CACHE says or in your own cache: the .flow-cache of a working_dir, say.",
)


@click.group(invoke_without_command=True)
@click.pass_context
def files(context: click.Context) -> None:
    """Look after the files that were fetched by URL and are kept for later runs."""
    if context.invoked_subcommand is None:
        context.invoke(size)


@files.command()
@_directory
def size(directory: Path | None) -> None:
    """Say where files are kept, how many, and how much space they take."""
    found = kept(directory)
    total = decimal(sum(one.bytes for one in found))
    say(f"{directory or place()}: {len(found)} URLs, {total}")


@files.command("ls")
@_directory
def list_all(directory: Path | None) -> None:
    """List the URLs of which something is kept, the longest unused first."""
    table = Table("last used", "size", "versions", "URL", box=None)
    for one in kept(directory):
        used = datetime.fromtimestamp(one.used).astimezone().strftime("%Y-%m-%d %H:%M")
        row(table, used, decimal(one.bytes), _held(one), one.url or "(not known yet)")
    show(table)


@files.command()
@_directory
@click.option(
    "--unused-for", type=click.FloatRange(min=0.0), default=0.0, help="Only what was unused for so many days."
)
def clear(directory: Path | None, unused_for: float) -> None:
    """Remove what is kept and not in use; the files of tasks stay as they are."""
    count, freed = clear_kept(directory, unused_for * _DAY_S)
    say(f"{directory or place()}: {count} URLs removed, {decimal(freed)}")


def _held(one: KeptFile) -> str:
    """Return how many versions are kept, or why there is none."""
    if one.versions:
        return str(one.versions)
    return "on its way" if one.in_use else "a part, of a broken transfer"
