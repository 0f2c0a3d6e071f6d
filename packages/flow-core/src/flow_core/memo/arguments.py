"""The arguments of a call by the names of their parameters, so that ``f(1)`` and ``f(x=1)`` are one call."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import FunctionType

STREAMS = frozenset({"stdout", "stderr"})
"""Parameters that never count: where output goes does not make another call."""
OUTPUTS = "outputs"
"""The parameter that names what a call makes: of files in it what was there before does not count."""


def named_arguments(
    function: Callable[..., object], args: Sequence[object], kwargs: Mapping[str, object], ignore: Sequence[str]
) -> dict[str, object]:
    """Return the arguments of a call that count, by name, without defaults.

    What does not fit the signature is there too, under its position or name: the call itself will say what is wrong.
    """
    # Keyword arguments after positional ones: a name given twice is an error of the call itself, which says so.
    skipped = STREAMS.union(ignore)
    given = {**dict(_positional(function, args)), **kwargs}
    return {name: value for name, value in given.items() if name not in skipped}


def _positional(function: Callable[..., object], args: Sequence[object]) -> Iterator[tuple[str, object]]:
    if not isinstance(function, FunctionType):
        # Callable objects and functions in C have no code object that names their parameters.
        yield from ((str(number), value) for number, value in enumerate(args))
        return
    code = function.__code__
    names = code.co_varnames[: code.co_argcount]
    yield from zip(names, args, strict=False)
    extra = args[len(names) :]
    if code.co_flags & inspect.CO_VARARGS:
        yield "*" + code.co_varnames[code.co_argcount + code.co_kwonlyargcount], tuple(extra)
    else:
        yield from ((str(len(names) + number), value) for number, value in enumerate(extra))


def defaults_of(function: Callable[..., object]) -> Iterator[tuple[str, object]]:
    """Yield name and default of every parameter that has one."""
    if not isinstance(function, FunctionType):
        return
    defaults = function.__defaults__ or ()
    names = function.__code__.co_varnames[: function.__code__.co_argcount]
    # Defaults belong to the last positional parameters, so the names are counted from the end.
    yield from zip(names[len(names) - len(defaults) :], defaults, strict=True)
    yield from (function.__kwdefaults__ or {}).items()
