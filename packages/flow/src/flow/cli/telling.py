"""How commands write what they found, which others may have written: control characters are shown, not obeyed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import click
from rich.console import Console
from rich.table import Table

from flow_core.printable import printable

_NO_TERMINAL = 1 << 20  # columns, where there is no terminal


def say(text: object, err: bool = False) -> None:
    """Write a line to standard output, or to standard error."""
    with _written():
        click.echo(printable(str(text)), err=err)


def row(table: Table, *cells: str) -> None:
    """Add a row to a table."""
    table.add_row(*(printable(cell).replace("\n", "\\n") for cell in cells))


def show(table: Table) -> None:
    """Write a table; what looks like markup in it is text."""
    console = Console(soft_wrap=True)
    if not console.is_terminal:  # a pipe has no width: what reads it wants whole names
        console.width = _NO_TERMINAL
    with _written():
        console.print(table, markup=False, highlight=False)


@contextmanager
def _written() -> Iterator[None]:
    """Raise ClickException where output cannot be written, as to a full disk. For a closed pipe click ends silently."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise click.ClickException(f"the output cannot be written: {error.strerror}") from None
