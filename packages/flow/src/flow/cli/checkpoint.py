"""``flow checkpoint``: what is in checkpoints, whether they are whole, and making them small."""

from __future__ import annotations

import os
import sys
from datetime import datetime
from pathlib import Path

import click
from rich.table import Table

from flow.cli.runs import RunPath, run_dir_option
from flow.cli.telling import row, say, show
from flow_core.checkpoint.compact import (
    CheckpointInfo,
    compact as compact_files,
    list_checkpoints,
    verify as verify_file,
)


@click.group()
def checkpoint() -> None:
    """Look after the checkpoints of runs."""


@checkpoint.command("ls")
@click.option("--run-dir", default="runinfo", show_default=True, help="Directory that holds the runs.")
def list_all(run_dir: str) -> None:
    """List the checkpoints of all runs."""
    found = list_checkpoints(run_dir)
    if not found:
        say(f"no checkpoints under {run_dir}")
        return
    table = Table("run", "results", "size", "newest", "state", "apps", box=None)
    for info in found:
        row(table, *_row(info))
    show(table)


@checkpoint.command()
@click.argument("places", nargs=-1, required=True, type=RunPath())
@run_dir_option
def verify(places: tuple[str, ...], run_dir: str) -> None:
    """Check every record of checkpoints or runs; exit code 1 if one is damaged."""
    damaged = False
    for place in places:
        info = verify_file(place)
        damaged |= not info.whole
        say(f"{info.path}: {info.records} records of {info.keys} calls, {'whole' if info.whole else 'DAMAGED'}")
        for damage in info.damages:
            say(f"  {damage}")
    if damaged:
        sys.exit(1)


@checkpoint.command()
@click.argument("sources", nargs=-1, required=True, type=RunPath())
@run_dir_option
@click.option("--into", type=click.Path(), help="Directory for the new checkpoint; default: the first, in place.")
@click.option("--trust-owner", multiple=True, metavar="USER", help="Take sources of this user, too.")
def compact(sources: tuple[str, ...], into: str | None, run_dir: str, trust_owner: tuple[str, ...]) -> None:
    """Keep the newest result of every call of SOURCES (oldest first) in one checkpoint."""
    done = compact_files(sources, into, trust_owner)
    say(
        f"{done.path}: {done.records_before} records became {done.records_after}, "
        f"{done.bytes_before} bytes became {done.bytes_after}"
    )
    for damage in done.damages:
        say(f"  left out: {damage}")


def _row(info: CheckpointInfo) -> tuple[str, ...]:
    newest = f"{datetime.fromtimestamp(info.newest_ns / 1e9):%Y-%m-%d %H:%M}" if info.newest_ns else "-"
    apps = [f"{app.rpartition('.')[2]} ({count})" for app, count in info.apps]
    shown = ", ".join(apps[:3]) + (", ..." if len(apps) > 3 else "")
    state = "whole" if info.whole else "damaged"
    return os.path.relpath(Path(info.path).parents[1]), str(info.keys), f"{info.size:,}", newest, state, shown
