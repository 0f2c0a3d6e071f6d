"""The repr of staging methods: the call that makes an equal one."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from types import FunctionType


def call_of(method: object, **options: object) -> str:
    """Return ``Class(option=value, ...)`` with the options that are not as by default."""
    parameters = inspect.signature(type(method)).parameters
    given = [f"{name}={_shown(value)}" for name, value in options.items() if value != parameters[name].default]
    return f"{type(method).__name__}({', '.join(given)})"


def without_values(given: Mapping[str, Mapping[str, object]] | None) -> dict[str, dict[str, str]] | None:
    """Return options by host, which may be secret, as they may be shown."""
    return {name: dict.fromkeys(options, "***") for name, options in given.items()} if given else None


def _shown(value: object) -> str:
    """Return an expression for a value; functions are given by their dotted name."""
    if isinstance(value, FunctionType) and "<" not in value.__qualname__:
        return value.__qualname__ if value.__module__ == "__main__" else f"{value.__module__}.{value.__qualname__}"
    return repr(value)
