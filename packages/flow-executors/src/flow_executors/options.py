"""Checking the options of executors against their annotations, when they are not the defaults."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Sequence

from flow_core.errors import ConfigurationError
from flow_providers.sequences import text_for_list

_BY_HAND = ("provider",)


def check_options(executor: object, init: Callable[..., None], names: Sequence[str]) -> None:
    """Check attributes of an executor by the annotations of its constructor.

    What has its default needs no check, so that nothing is imported for it.

    Raises:
        ConfigurationError: naming the executor, the option, what it must be and what it is.
    """
    parameters = inspect.signature(init).parameters
    changed = [
        name for name in names if name not in _BY_HAND and getattr(executor, name) is not parameters[name].default
    ]
    changed = [name for name in changed if not _same(getattr(executor, name), parameters[name].default)]
    if not changed:
        return
    from typeguard import TypeCheckError, check_type

    hints = typing.get_type_hints(init)
    for name in changed:
        value = getattr(executor, name)
        if text_for_list(value, hints[name]):
            raise ConfigurationError(
                f"{type(executor).__name__}: option {name}={value!r} must be a list, not text: its letters would count"
            )
        try:
            check_type(value, hints[name])
        except TypeCheckError as error:
            kind = type(executor).__name__
            raise ConfigurationError(f"{kind}: option {name}={value!r} has a wrong type: {error}") from None


def _same(value: object, default: object) -> bool:
    return type(value) is type(default) and value == default
