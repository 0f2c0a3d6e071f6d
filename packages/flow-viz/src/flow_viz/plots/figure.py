"""A figure of plotly as plain data, the arguments of ``Plotly.react``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Trace = dict[str, Any]
"""One trace; the keys are plotly's own."""


@dataclass(frozen=True, slots=True)
class Figure:
    """Traces, layout, and a note shown under the picture. Colours of ground and text are the page's."""

    traces: list[Trace] = field(default_factory=list)
    layout: dict[str, Any] = field(default_factory=dict)
    note: str = ""

    def plain(self) -> dict[str, Any]:
        """Return it as it is sent."""
        # Plain data: plotly's Python objects would check each attribute again, and the browser takes plain data.
        return {"data": self.traces, "layout": self.layout, "note": self.note}


def escape(text: str, most: int = 80) -> str:
    """Return text safe in labels and hovers: plotly reads tags in them."""
    short = text if len(text) <= most else text[: most - 1] + "…"
    # "&" first, or it would be escaped a second time in the others.
    return short.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def milliseconds(time_ns: int) -> float:
    """Return a time as plotly's date axes take it."""
    # A float: whole nanoseconds do not fit into the numbers of JavaScript.
    return time_ns / 1e6
