"""Options as the fields of a dataclass: default, type, documentation and check of an option stand in one place.

Constructor, attributes and type checkers have them from the dataclass; docstrings, tables of the documentation, command
lines and errors from the metadata of its fields.
"""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import Callable, Iterator, Mapping
from functools import wraps
from textwrap import fill
from typing import TypeVar

from flow_core.errors import ConfigurationError
from flow_providers.sequences import text_for_list

Check = Callable[[object], str]
"""Returns what a value must be instead; empty where it is well."""
_T = TypeVar("_T")
_DOCUMENTATION, _CHECK, _WITHOUT_EFFECT, _UNTYPED = "documentation", "check", "without_effect", "untyped"
_WIDTH = 116  # columns of a docstring


def about(
    documentation: str, check: Check | None = None, *, without_effect: bool = False, untyped: bool = False
) -> Mapping[str, object]:
    """Return the metadata of an option's field.

    Args:
        documentation: Meaning and unit, as sentences.
        check: Check of its value; its type is checked by its annotation.
        without_effect: Whether it is taken for the sake of scripts that give it, and then named in the log.
        untyped: Whether its type is checked elsewhere.
    """
    return {_DOCUMENTATION: documentation, _CHECK: check, _WITHOUT_EFFECT: without_effect, _UNTYPED: untyped}


def above(least: float) -> Check:
    """Return a check for numbers above one; None is well."""
    return lambda value: f"must be above {least}" if isinstance(value, int | float) and not value > least else ""


def at_least(least: float, otherwise: str = "") -> Check:
    """Return a check for numbers of at least one; None is well. ``otherwise`` says what else may be given."""
    return lambda value: (
        f"must be at least {least}{otherwise}" if isinstance(value, int | float) and value < least else ""
    )


def one_of(*values: object) -> Check:
    """Return a check for a choice."""
    known = f"{', '.join(map(repr, values[:-1]))} or {values[-1]!r}"
    return lambda value: "" if any(value is one or value == one for one in values) else f"must be {known}"


def options_of(kind: object) -> Iterator[dataclasses.Field[object]]:
    """Yield the fields that are options, of a record or of its class: as its constructor takes them."""
    for field in sorted(
        dataclasses.fields(typing.cast("type[typing.Any]", kind)), key=lambda field: field.kw_only is True
    ):
        if _DOCUMENTATION in field.metadata:
            yield field


def documentation_of(field: dataclasses.Field[object]) -> str:
    """Return what an option means."""
    return str(field.metadata[_DOCUMENTATION])


def documented(kind: type[_T]) -> type[_T]:
    """Add the options of a record to the docstring of its class, and let its constructor name the one that is meant."""
    if kind.__doc__ is not None:  # Python may run without docstrings
        # Where no section follows, the options end the docstring.
        head, raises, tail = kind.__doc__.rstrip().partition("\n    Raises:")
        lines = (
            fill(f"{field.name}: {documentation_of(field)}", _WIDTH, initial_indent=" " * 8, subsequent_indent=" " * 12)
            for field in options_of(kind)
        )
        kind.__doc__ = f"{head.rstrip()}\n\n    Args:\n" + "\n".join(lines) + f"\n{raises}{tail}\n    "
    init: Callable[..., None] = kind.__init__

    @wraps(init)
    def checking(self: object, *args: object, **kwargs: object) -> None:
        known = {field.name for field in dataclasses.fields(typing.cast("type[typing.Any]", type(self))) if field.init}
        known |= accepted
        for name in kwargs:
            if name not in known:
                raise TypeError(f"{type(self).__name__}() has no option {name!r}{_near(name, known)}")
        init(self, *args, **kwargs)

    accepted = set(inspect.signature(init).parameters)
    kind.__init__ = checking  # type: ignore[method-assign]  # the same arguments
    return kind


def check_options(record: object, name: str) -> None:
    """Check the options of a record that are not the defaults: by their annotations, and each by its own check.

    What has its default needs no check, so that nothing is imported for it.

    Args:
        record: Instance of a dataclass.
        name: What the options are of, for errors.

    Raises:
        ConfigurationError: naming the option, what it must be and what it is.
    """
    changed = [field for field in options_of(record) if not _same(getattr(record, field.name), field.default)]
    if not changed:
        return
    from typeguard import TypeCheckError, check_type

    hints = typing.get_type_hints(type(record))
    for field in changed:
        value = getattr(record, field.name)
        if not field.metadata[_UNTYPED]:
            if text_for_list(value, hints[field.name]):
                raise ConfigurationError(
                    f"{name}: option {field.name}={value!r} must be a list, not text: its letters would count"
                )
            try:
                check_type(value, hints[field.name])
            except TypeCheckError as error:
                raise ConfigurationError(f"{name}: option {field.name}={value!r} has a wrong type: {error}") from None
        check: Check | None = field.metadata[_CHECK]
        if check is not None and (wrong := check(value)):
            raise ConfigurationError(f"{name}: {field.name} {wrong}, not {value!r}")


def without_effect(record: object) -> list[str]:
    """Return the options that have no effect and were given all the same."""
    return [
        field.name
        for field in options_of(record)
        if field.metadata[_WITHOUT_EFFECT] and getattr(record, field.name) != field.default
    ]


def table(kind: type[object]) -> str:
    """Return the options of a record as a table in Markdown, one line an option."""
    lines = ["| option | default | meaning |", "| --- | --- | --- |"]
    for field in options_of(kind):
        text = documentation_of(field).replace("``", "`").replace("|", "\\|")
        lines.append(f"| `{field.name}` | `{_written(field.default)}` | {text} |")
    return "\n".join(lines) + "\n"


def _written(default: object) -> str:
    """Return a default as one would write it: sizes in bytes as so many MiB or GiB."""
    for bits in (30, 20):
        if type(default) is int and default and default % (1 << bits) == 0:
            return f"{default >> bits} << {bits}"
    return repr(default)


def _same(value: object, default: object) -> bool:
    return value is default or (type(value) is type(default) and value == default)


def _near(name: str, known: set[str]) -> str:
    from difflib import get_close_matches  # needed by errors only

    near = get_close_matches(name, known, n=1)
    return f": did you mean {near[0]!r}?" if near else f"; its options are: {', '.join(sorted(known - {'self'}))}"
