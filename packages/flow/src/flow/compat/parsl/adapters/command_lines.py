"""Command lines of bash apps with the names of arguments in braces, which Parsl 0.9 filled in after the function."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from functools import wraps
from types import CodeType
from typing import Any

from flow_core.errors import AppBadFormatting

_FIELD = re.compile(r"(?<!\{)\{([A-Za-z_]\w*)(?:\[(\d+)\])?\}(?!\})")


def filled_in(func: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function whose command line has the values of arguments for their names in braces.

    The same function where no text in it has such a name. Braces of the shell, of awk or of patterns stay as they are:
    only names of parameters, and ``{inputs[0]}`` and the like, are fields.
    """
    code = getattr(func, "__code__", None)
    if not isinstance(code, CodeType) or not (_fields(code) & {"inputs", "outputs", *_names(func)}):
        return func
    names = {"inputs", "outputs", *_names(func)}
    signature = inspect.signature(func)

    @wraps(func)
    def with_values(*args: Any, **kwargs: Any) -> Any:
        line = func(*args, **kwargs)
        if not isinstance(line, str):
            return line
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        values = {**bound.arguments, **bound.arguments.get("kwargs", {})}

        def value(field: re.Match[str]) -> str:
            name, place = field[1], field[2]
            if name not in names or name not in values:
                return field[0]
            return str(values[name] if place is None else values[name][int(place)])

        try:
            return _FIELD.sub(value, line)
        except Exception as error:
            raise AppBadFormatting(f"the command line {line!r} cannot be filled in: {error}") from error

    return with_values


def _fields(code: CodeType) -> set[str]:
    """Return the names in braces in all texts of a function."""
    found: set[str] = set()
    for constant in code.co_consts:
        if isinstance(constant, str):
            found |= {field[1] for field in _FIELD.finditer(constant)}
        elif isinstance(constant, CodeType):
            found |= _fields(constant)
    return found


def _names(func: Callable[..., Any]) -> set[str]:
    return set(inspect.signature(func).parameters)
