"""Names of options that users write: a wrong one is an error that says which was probably meant."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import wraps
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


def did_you_mean(name: object, known: tuple[str, ...]) -> str:
    """Return the end of an error message: the nearest known name, or all of them."""
    from flow_core.option_records import nearest  # needed by errors only

    near = nearest(str(name), known)
    return f": did you mean {near!r}?" if near else f"; known are {', '.join(known)}"


def known_options(function: Callable[P, R], meant: Mapping[str, str] | None = None) -> Callable[P, R]:
    """Have a function, or a constructor, refuse options that it does not have, and name the nearest that it has.

    Args:
        function: The function.
        meant: Names that are no options, and the option that is surely meant by each.

    Raises (from the function):
        TypeError: there is no such option.
    """
    names = tuple(
        one.name
        for one in inspect.signature(function).parameters.values()
        if one.kind in (one.KEYWORD_ONLY, one.POSITIONAL_OR_KEYWORD) and one.name != "self"
    )
    called = function.__qualname__.removesuffix(".__init__").rpartition(".")[2]

    @wraps(function)
    def checking(*args: P.args, **kwargs: P.kwargs) -> R:
        for name in kwargs:
            if name not in names:
                near = did_you_mean((meant or {}).get(name, name), names)
                raise TypeError(f"{called}() has no option {name!r}{near}")
        return function(*args, **kwargs)

    return checking
