"""Progress as a table in a notebook: the output of the cell that loaded the Config, changed in its place."""

from __future__ import annotations

import html
from typing import Protocol

from flow.progress.counts import AppCounts, Counts


class Handle(Protocol):
    """An output of a cell that can be changed: ``IPython.display.DisplayHandle``."""

    def update(self, shown: object) -> None:
        """Show something else in its place."""


class Table:
    """A table in a notebook. Works without widgets, and stays as it was last when the notebook is saved."""

    def __init__(self) -> None:
        # Here: only a notebook has it.
        from IPython.display import HTML, display

        self._html = HTML
        self._handle: Handle = display(HTML(table({}, "")), display_id=True)

    def show(self, counts: Counts, line: str) -> None:
        """Show what is counted, with a line under it."""
        self._handle.update(self._html(table(counts.apps, line)))


def table(apps: dict[str, AppCounts], line: str) -> str:
    """Return the table in HTML: a row an app with its bar, failures in words and not only in a colour."""
    rows = "".join(_row(app, one) for app, one in apps.items())
    return f'<div style="font-family:sans-serif"><table>{rows}</table><div>{html.escape(line)}</div></div>'


def _row(app: str, one: AppCounts) -> str:
    failed = f"{one.failed:,} failed" if one.failed else ""
    bar = f'<progress max="{max(1, one.submitted)}" value="{one.ended}"></progress>'
    number = f"{one.ended:,} / {one.submitted:,}"
    cells = (html.escape(app), bar, number, f'<span style="color:#b00020">{failed}</span>')
    return "<tr>" + "".join(f'<td style="text-align:left">{cell}</td>' for cell in cells) + "</tr>"
