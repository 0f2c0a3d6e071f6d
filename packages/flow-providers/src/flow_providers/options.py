"""Checked constructors: each option is checked against its annotation, remembered, and shown by repr.

What is remembered also makes an equal object in another process (see ``spec``): the reaper and the command line
need it.
"""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Callable, Mapping
from dataclasses import fields
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from flow_providers.errors import BadOption
from flow_providers.option_checks import text_for_list, wrong_number
from flow_providers.option_records import nearest, parameters_of
from flow_providers.walltime import not_a_walltime
from flow_providers.without_effect import reason_of, warn_of

P = ParamSpec("P")
Record = TypeVar("Record")

# Never shown by repr, written to the ledger, or put on a command line.
_HIDDEN = frozenset({"password", "token", "client_secret"})
_LINES = frozenset(
    {
        "worker_init", "scheduler_options", "overrides", "prepend", "ssh_public_key", "envs", "environment",
        "password", "token", "client_secret", "secret",
    }
)  # fmt: skip
"""Options that may have several lines: shell code, directives as they are, and what is quoted or is in no script."""
_WORDS = frozenset(
    {
        "partition", "account", "qos", "constraint", "clusters", "gpus_per_node", "queue", "project",
        "parallel_environment", "select_options",
    }
)  # fmt: skip
"""Options that are one word of a directive: what follows a space would be another option of the scheduler's."""
_CODE = frozenset({"envs", "worker_init", "scheduler_options"})


def checked(init: Callable[P, None]) -> Callable[P, None]:
    """Make a constructor check its arguments by their annotations before it runs.

    Raises (from the constructor):
        BadOption: naming the class, the option, what it must be and what was given. Text with line breaks or other
            control characters is refused: in a submit script it would become lines of its own. So are spaces in what
            is one word there.
    """
    signature = inspect.signature(init)

    @wraps(init)
    def checking(*args: P.args, **kwargs: P.kwargs) -> None:
        self: Any = args[0]
        owner = type(self).__name__
        try:
            given = signature.bind(*args, **kwargs)
        except TypeError as error:
            known = list(signature.parameters)[1:]
            raise BadOption(f"{owner}: {error}{_near(kwargs, known)}; its options are: {', '.join(known)}") from None
        _check(owner, init, dict(list(given.arguments.items())[1:]))
        given.apply_defaults()
        outer = getattr(self, "_given", None)
        # Only while the constructor runs: record_of() reads it there.
        self._given = _flat(signature, given)
        # Constructors of subclasses call those of their bases, which are checked too.
        if outer is None:  # the outermost constructor's view is the user's
            self._options = self._given
        try:
            init(*args, **kwargs)
        finally:
            self._given = outer
        ineffective = getattr(self, "ineffective_options", None)
        if outer is None and ineffective is not None:
            warn_of(owner, ineffective())

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
    # Users change attributes between two jobs: the reaper's copy must have the new values.
    return {name: getattr(thing, name, value) for name, value in made_with.items()}


def repr_of(thing: object) -> str:
    """Return a repr of the options, hiding secrets."""
    shown = (f"{k}={'***' if k in _HIDDEN and v is not None else repr(v)}" for k, v in options_of(thing).items())
    return f"{type(thing).__name__}({', '.join(shown)})"


def is_code(option: str) -> bool:
    """Return whether an option's value is run, or decides what is run: it is never taken from a file."""
    return option in _CODE


def is_secret(option: str) -> bool:
    """Return whether an option must never be written to a file or a log."""
    return option in _HIDDEN


def _near(given: Mapping[str, object], known: list[str]) -> str:
    """Return which option was meant by the first name that is none; empty where there is no such, or none is near."""
    for name in given:
        if name not in known:
            near = nearest(name, known)
            return f": did you mean {near!r}?" if near else ""
    return ""


def _flat(signature: inspect.Signature, given: inspect.BoundArguments) -> dict[str, object]:
    flat: dict[str, object] = {}
    for name, value in list(given.arguments.items())[1:]:
        if signature.parameters[name].kind is inspect.Parameter.VAR_KEYWORD:
            flat.update(value)
        else:
            flat[name] = value
    return flat


def _control_character(value: object) -> str:
    """Return the first control character in a text, or in a list or mapping of them; empty where there is none."""
    if isinstance(value, str):
        return next((letter for letter in value if letter < " " or letter == "\x7f"), "")
    if isinstance(value, Mapping):
        return next(filter(None, map(_control_character, (*value, *value.values()))), "")
    if isinstance(value, list | tuple | set | frozenset):
        return next(filter(None, map(_control_character, value)), "")
    return ""


def _check(owner: str, init: Callable[..., None], given: dict[str, object]) -> None:
    if not given:  # nothing said, nothing to check: typeguard (80 ms) need not be imported
        return
    from typeguard import TypeCheckError, check_type

    hints = typing.get_type_hints(init)
    ineffective = {option.name: option for option in parameters_of(init) if option.without_effect}
    for name, value in given.items():
        if name in ineffective and value != ineffective[name].default:
            warn_of(owner, [f"{name}={value!r} has no effect: {reason_of(ineffective[name].documentation)}"])
        # Before the check of the type: a line break in an option of a directive would be a line of the script, with
        # whatever follows.
        if name not in _LINES and (bad := _control_character(value)):
            raise BadOption(
                f"{owner}: option {name}={value!r} has the control character {bad!r}, which a submit script would take "
                "for the end of a line or worse: leave it out"
            )
        if name in _WORDS and isinstance(value, str) and re.search(r"\s", value):
            raise BadOption(
                f"{owner}: option {name}={value!r} must be one word: in a submit script the rest would be other "
                "options. Give those as scheduler_options"
            )
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
        if wrong := wrong_number(value, hint):
            raise BadOption(f"{owner}: option {name}={value!r} {wrong}")
