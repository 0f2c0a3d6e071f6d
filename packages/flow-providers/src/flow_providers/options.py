"""Checked constructors: each option is checked against its annotation, remembered, and shown by repr.

What is remembered also makes an equal object in another process (see ``spec``): the reaper and the command line
need it.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable
from dataclasses import fields
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from flow_providers.errors import BadOption
from flow_providers.sequences import text_for_list
from flow_providers.walltime import not_a_walltime

P = ParamSpec("P")
Record = TypeVar("Record")

_HIDDEN = frozenset({"password", "token", "client_secret"})


def checked(init: Callable[P, None]) -> Callable[P, None]:
    """Make a constructor check its arguments by their annotations before it runs.

    Raises (from the constructor):
        BadOption: naming the class, the option, what it must be and what was given.
    """
    signature = inspect.signature(init)

    @wraps(init)
    def checking(*args: P.args, **kwargs: P.kwargs) -> None:
        self: Any = args[0]
        owner = type(self).__name__
        try:
            given = signature.bind(*args, **kwargs)
        except TypeError as error:
            raise BadOption(f"{owner}: {error}; its options are: {', '.join(list(signature.parameters)[1:])}") from None
        _check(owner, init, dict(list(given.arguments.items())[1:]))
        given.apply_defaults()
        outer = getattr(self, "_given", None)
        self._given = _flat(signature, given)
        if outer is None:  # the outermost constructor's view is the user's
            self._options = self._given
        try:
            init(*args, **kwargs)
        finally:
            self._given = outer

    return checking


def record_of(kind: type[Record], thing: object, **changed: object) -> Record:
    """Return a record of options, filled from the checked constructor that is running.

    Args:
        kind: A dataclass; its fields take the constructor's options of the same names, the others their defaults.
        thing: The object that is being made.
        changed: Fields that take other values.

    Raises:
        BadOption: by the record, where it checks its values.
    """
    given: dict[str, object] = getattr(thing, "_given", None) or {}
    names = {field.name for field in fields(kind)}  # type: ignore[arg-type]  # whatever dataclass it is
    return kind(**{**{name: value for name, value in given.items() if name in names}, **changed})


def options_of(thing: object) -> dict[str, object]:
    """Return the options an object was made with, at their present values where it has attributes of the same names."""
    made_with: dict[str, object] = getattr(thing, "_options", {})
    return {name: getattr(thing, name, value) for name, value in made_with.items()}


def repr_of(thing: object) -> str:
    """Return a repr of the options, hiding secrets."""
    shown = (f"{k}={'***' if k in _HIDDEN and v is not None else repr(v)}" for k, v in options_of(thing).items())
    return f"{type(thing).__name__}({', '.join(shown)})"


def is_secret(option: str) -> bool:
    """Return whether an option must never be written to a file or a log."""
    return option in _HIDDEN


def _flat(signature: inspect.Signature, given: inspect.BoundArguments) -> dict[str, object]:
    flat: dict[str, object] = {}
    for name, value in list(given.arguments.items())[1:]:
        if signature.parameters[name].kind is inspect.Parameter.VAR_KEYWORD:
            flat.update(value)
        else:
            flat[name] = value
    return flat


def _check(owner: str, init: Callable[..., None], given: dict[str, object]) -> None:
    if not given:  # nothing said, nothing to check: typeguard (80 ms) need not be imported
        return
    from typeguard import TypeCheckError, check_type

    hints = typing.get_type_hints(init)
    for name, value in given.items():
        hint = hints.get(name)
        if hint is None or hint is Any:
            continue
        if text_for_list(value, hint):
            raise BadOption(f"{owner}: option {name}={value!r} must be a list, not text: its letters would be taken")
        try:
            check_type(value, hint)
        except TypeCheckError as error:
            if name == "walltime":
                raise BadOption(f"{owner}: {not_a_walltime(value)}") from None
            wanted = getattr(hint, "__name__", None) if isinstance(hint, type) else str(hint)
            raise BadOption(f"{owner}: option {name}={value!r} must be {wanted or hint}: {error}") from None
