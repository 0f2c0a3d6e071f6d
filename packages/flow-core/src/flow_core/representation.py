"""Representation of configuration objects: an expression that makes an equal object."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import PurePath

_LINE = 100  # characters from which options stand on lines of their own


def expression(value: object, options: Sequence[str]) -> str:
    """Return ``Class(option=value, ...)`` from the attributes of these names, in several lines if it is long.

    Functions and classes are given by their dotted name, paths as text, pools of the standard library by their size.
    """
    parts = [f"{option}={shown(getattr(value, option))}" for option in options]
    name = type(value).__qualname__
    line = f"{name}({', '.join(parts)})"
    if len(line) <= _LINE and "\n" not in line:
        return line
    body = ",\n".join(parts).replace("\n", "\n    ")
    return f"{name}(\n    {body},\n)"


def shown(value: object) -> str:
    """Return an expression for one value."""
    if isinstance(value, (list, tuple)):
        return _sequence(value)
    if isinstance(value, PurePath):
        return repr(str(value))
    # repr() gives "inf", which is no expression.
    if isinstance(value, float) and math.isinf(value):
        return f"float({str(value)!r})"
    if type(value).__module__.startswith("concurrent.futures.") and hasattr(value, "_max_workers"):
        return f"concurrent.futures.{type(value).__name__}({value._max_workers})"
    dotted = _dotted(value)
    return repr(value) if dotted is None else dotted


def html_table(title: str, rows: Iterable[tuple[str, object]]) -> str:
    """Return a small table in HTML, for notebooks: a title, and rows of a name and a value."""
    from html import escape  # here: of all who import this module, only notebooks need it

    cells = "".join(
        f'<tr><td style="text-align:left">{escape(name)}</td><td style="text-align:left">{escape(str(value))}</td></tr>'
        for name, value in rows
    )
    return f"<div><strong>{escape(title)}</strong><table>{cells}</table></div>"


def html_text(text: str) -> str:
    """Return text in HTML with its lines as they are."""
    from html import escape

    return f"<pre>{escape(text)}</pre>"


def _sequence(values: list[object] | tuple[object, ...]) -> str:
    inside = ", ".join(shown(item) for item in values)
    if isinstance(values, list):
        return f"[{inside}]"
    return f"({inside},)" if len(values) == 1 else f"({inside})"


def _dotted(value: object) -> str | None:
    """Return the dotted name of a function or class, None for everything else (and for what has no usable name)."""
    qualname = getattr(value, "__qualname__", None)
    module = getattr(value, "__module__", None)
    if not isinstance(qualname, str) or not isinstance(module, str) or "<" in qualname:
        return None
    return qualname if module in ("builtins", "__main__") else f"{module}.{qualname}"
