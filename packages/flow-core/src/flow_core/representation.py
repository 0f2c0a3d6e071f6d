"""Representation of configuration objects: an expression that makes an equal object."""

from __future__ import annotations

import math
from collections.abc import Sequence
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
