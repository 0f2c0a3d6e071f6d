"""Fitting of arguments to functions: a call that cannot be made is refused where it is written."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection
from inspect import CO_VARARGS, CO_VARKEYWORDS
from types import CodeType, FunctionType
from typing import Any

from flow_core.option_names import did_you_mean

# Forms of calls (a count, and names) of one function that are known to fit: a bound for functions with ``**kwargs``,
# which take any number of them. Scripts use a few.
_FORMS_KEPT = 64


class Fitting:
    """Knows which arguments a function takes; of other callables than plain functions it knows nothing. Any thread.

    Attributes:
        least: A call with so many positional arguments, and no others, surely fits;
        most: so does one with so many, and any number between. None fits so where ``least`` is greater.
        fits: Calls that are known to fit: so many arguments by position, and the names of those by keyword.
    """

    def __init__(self, func: Callable[..., object], name: str, special: Collection[str] = ()) -> None:
        """Take a function; ``special`` are keywords that a call may hold or lack, whatever its function takes."""
        self._name = name
        self._special = frozenset(special)
        self.fits: set[tuple[object, ...]] = set()
        # A decorator that sets __signature__ says that the function takes other arguments than its code does.
        self._func = func if type(func) is FunctionType and "__signature__" not in func.__dict__ else None
        self.least, self.most = 0, sys.maxsize
        if self._func is not None:
            code, defaults = self._func.__code__, self._func.__defaults__ or ()
            self.most = sys.maxsize if code.co_flags & CO_VARARGS else code.co_argcount
            # With keywords that must be given, no call by position alone fits: ``least`` is then above any number.
            self.least = code.co_argcount - len(defaults) if not _required_keywords(self._func) else sys.maxsize

    def error(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> TypeError | None:
        """Return what is wrong with a call, as Python would say it; None if it fits, or that is not known."""
        func = self._func
        form = (len(args), *kwargs)
        if form in self.fits:
            return None
        problem = "" if func is None else self._problem(func, func.__code__, len(args), kwargs)
        if not problem and len(self.fits) < _FORMS_KEPT:
            self.fits.add(form)
        return TypeError(f"{self._name}() {problem}") if problem else None

    def _problem(self, func: FunctionType, code: CodeType, given: int, kwargs: dict[str, Any]) -> str:
        """Return what is wrong. Defaults are looked at now: a script may have set others."""
        positional = code.co_varnames[: code.co_argcount]
        keywords = code.co_varnames[code.co_argcount : code.co_argcount + code.co_kwonlyargcount]
        if given > len(positional) and not code.co_flags & CO_VARARGS:
            return _too_many(len(positional), len(func.__defaults__ or ()), given)
        for name in kwargs:
            if name in positional[code.co_posonlyargcount : given]:
                return f"got multiple values for argument {name!r}"
            known = (*positional[code.co_posonlyargcount :], *keywords)
            if name not in known and name not in self._special and not code.co_flags & CO_VARKEYWORDS:
                return f"got an unexpected keyword argument {name!r}{did_you_mean(name, known)}"
        required = positional[given : len(positional) - len(func.__defaults__ or ())]
        return _missing(
            [
                name
                for place, name in enumerate((*required, *_required_keywords(func)), given)
                if (name not in kwargs or place < code.co_posonlyargcount) and name not in self._special
            ]
        )


def _required_keywords(func: FunctionType) -> tuple[str, ...]:
    code, given = func.__code__, func.__kwdefaults__ or {}
    names = code.co_varnames[code.co_argcount : code.co_argcount + code.co_kwonlyargcount]
    return tuple(name for name in names if name not in given)


def _too_many(positional: int, defaults: int, given: int) -> str:
    takes = f"from {positional - defaults} to {positional}" if defaults else f"{positional}"
    was = "was" if given == 1 else "were"
    return f"takes {takes} positional argument{'' if positional == 1 and not defaults else 's'} but {given} {was} given"


def _missing(names: list[str]) -> str:
    if not names:
        return ""
    shown = [repr(name) for name in names]
    text = shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"
    return f"missing {len(shown)} required argument{'s' if shown[1:] else ''}: {text}"
