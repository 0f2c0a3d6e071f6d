"""Options that stand in one place: name, type, default, documentation and check.

That place is the field of a dataclass (``field(default=..., metadata=about(...))``) or, where an attribute has another
type than what is given for it, the parameter of a constructor (``Annotated[type, about(...)]``, under a name if several
classes share it; fields may have it, too). Constructor and type checkers take them from there; docstrings, tables of
the documentation, command lines and errors from what ``about`` returned.

``flow_core.option_records`` and ``flow_providers.option_records`` are the same text, since neither may import the
other; a test compares them.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
import typing
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import cache, wraps
from textwrap import fill
from typing import Any, TypeVar

Check = Callable[[object], str]
"""Returns what a value must be instead; empty where it is well."""
_T = TypeVar("_T")
_DOCUMENTATION, _CHECK, _WITHOUT_EFFECT, _UNTYPED = "documentation", "check", "without_effect", "untyped"
_WIDTH = 116  # columns of a docstring


class Option(typing.NamedTuple):
    """One option of a class.

    Attributes:
        name: The parameter, and the attribute.
        default: Its default; ``inspect.Parameter.empty`` where it must be given.
        documentation: Meaning and unit, as sentences.
        check: Check of its value; None where its type says all.
        without_effect: Whether it is taken for the sake of scripts that give it, and then named in the log.
        untyped: Whether its type is checked elsewhere.
    """

    name: str
    default: object
    documentation: str
    check: Check | None
    without_effect: bool
    untyped: bool


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


def above(least: float, most: float = math.inf) -> Check:
    """Return a check for numbers above one, and of at most another; None is well."""
    bounds = f"above {least}" if most == math.inf else f"above {least} and at most {most:g}"
    return lambda value: f"must be {bounds}" if isinstance(value, int | float) and not least < value <= most else ""


def at_least(least: float, otherwise: str = "") -> Check:
    """Return a check for numbers of at least one; None is well. ``otherwise`` says what else may be given."""
    return lambda value: (
        f"must be at least {least}{otherwise}" if isinstance(value, int | float) and value < least else ""
    )


def one_of(*values: object) -> Check:
    """Return a check for a choice."""
    known = f"{', '.join(map(repr, values[:-1]))} or {values[-1]!r}"
    return lambda value: "" if any(value is one or value == one for one in values) else f"must be {known}"


def options_of(kind: object) -> Iterator[Option]:
    """Yield the options of a dataclass, or of a class with an annotated constructor; also given one of its instances.

    They come in the order in which the constructor takes them.
    """
    owner: type[Any] = kind if isinstance(kind, type) else type(kind)
    if not dataclasses.is_dataclass(owner):
        yield from parameters_of(owner.__init__)
        return
    fields = sorted(dataclasses.fields(owner), key=lambda field: field.kw_only is True)
    named = all(_DOCUMENTATION in field.metadata for field in fields)
    hints = {} if named else typing.get_type_hints(owner, include_extras=True)
    for field in fields:
        about_it = field.metadata if _DOCUMENTATION in field.metadata else _metadata_of(hints.get(field.name))
        if about_it is not None:
            default = inspect.Parameter.empty if field.default is dataclasses.MISSING else field.default
            yield _option(field.name, default, about_it)


def parameters_of(function: Callable[..., object]) -> Iterator[Option]:
    """Yield the parameters of a function, or of a constructor, that are options."""
    hints = _hints_of(function)
    for name, parameter in inspect.signature(function).parameters.items():
        if (metadata := _metadata_of(hints.get(name))) is not None:
            yield _option(name, parameter.default, metadata)


@cache  # to read the annotations of forty parameters takes a millisecond, in which a script waits for its imports
def _hints_of(init: Callable[..., object]) -> dict[str, Any]:
    return typing.get_type_hints(init, include_extras=True)


def _metadata_of(hint: object) -> Mapping[str, object] | None:
    """Return what ``about`` returned for an annotation; None where it has nothing of it."""
    for one in getattr(hint, "__metadata__", ()):
        if isinstance(one, Mapping) and _DOCUMENTATION in one:
            return one
    return None


def _option(name: str, default: object, metadata: Mapping[str, object]) -> Option:
    return Option(name, default, **typing.cast("dict[str, Any]", dict(metadata)))


def documented(kind: type[_T]) -> type[_T]:
    """Add the options of a class to its docstring; let the constructor of a dataclass name the option that is meant."""
    if kind.__doc__ is not None:  # Python may run without docstrings
        # Python 3.13 takes the indentation of docstrings away. Where no section follows, the options end the docstring.
        head, raises, tail = inspect.cleandoc(kind.__doc__).partition("\nRaises")
        lines = (
            fill(f"{option.name}: {option.documentation}", _WIDTH, initial_indent=" " * 4, subsequent_indent=" " * 8)
            for option in options_of(kind)
        )
        kind.__doc__ = f"{head.rstrip()}\n\nArgs:\n" + "\n".join(lines) + f"\n{raises}{tail}\n"
    return _with_known_names(kind) if dataclasses.is_dataclass(kind) else _with_plain_signature(kind)


def _with_plain_signature(kind: type[_T]) -> type[_T]:
    """Let ``help`` and editors show the types of a constructor's parameters without what is said about them."""
    init: Any = kind.__init__
    signature = inspect.signature(init)
    hints = {
        name: hint.__origin__ if typing.get_origin(hint) is typing.Annotated else hint
        for name, hint in _hints_of(init).items()
    }
    plain = [one.replace(annotation=hints.get(name, one.annotation)) for name, one in signature.parameters.items()]
    init.__signature__ = signature.replace(parameters=plain, return_annotation=None)
    return kind


def _with_known_names(kind: type[_T]) -> type[_T]:
    """Let the constructor of a dataclass refuse other names."""
    init: Callable[..., None] = kind.__init__

    @wraps(init)
    def checking(self: object, *args: object, **kwargs: object) -> None:
        known = {field.name for field in dataclasses.fields(typing.cast("type[Any]", type(self))) if field.init}
        known |= accepted
        for name in kwargs:
            if name not in known:
                raise TypeError(f"{type(self).__name__}() has no option {name!r}{_near(name, known)}")
        init(self, *args, **kwargs)

    accepted = set(inspect.signature(init).parameters)
    kind.__init__ = checking  # type: ignore[method-assign]  # the same arguments
    return kind


def without_effect(record: object) -> list[str]:
    """Return the options that have no effect and were given all the same."""
    return [
        option.name
        for option in options_of(record)
        if option.without_effect and getattr(record, option.name) != option.default
    ]


def table(kind: type[object]) -> str:
    """Return the options of a class as a table in Markdown, one line an option."""
    lines = ["| option | default | meaning |", "| --- | --- | --- |"]
    for option in options_of(kind):
        text = option.documentation.replace("``", "`").replace("|", "\\|")
        default = "must be given" if option.default is inspect.Parameter.empty else f"`{_written(option.default)}`"
        lines.append(f"| `{option.name}` | {default} | {text} |")
    return "\n".join(lines) + "\n"


def _written(default: object) -> str:
    """Return a default as one would write it: sizes in bytes as so many MiB or GiB."""
    for bits in (30, 20):
        if type(default) is int and default and default % (1 << bits) == 0:
            return f"{default >> bits} << {bits}"
    return repr(default)


def nearest(name: str, known: Collection[str]) -> str:
    """Return the known name that is surely meant by a wrong one; empty where none is.

    Names of a few letters are alike by chance: ``gpus`` has three letters of ``bogus``, in order. Those that do not
    begin alike must be nearly the same.
    """
    from difflib import SequenceMatcher, get_close_matches  # needed by errors only

    for near in get_close_matches(name, sorted(known), n=3):
        if near[:1] == name[:1] or SequenceMatcher(None, near, name).ratio() >= _NEARLY:
            return near
    return ""


_NEARLY = 0.75  # of 1: two letters that are swapped in a name of four, one that is wrong in one of eight


def _near(name: str, known: set[str]) -> str:
    near = nearest(name, known)
    return f": did you mean {near!r}?" if near else f"; its options are: {', '.join(sorted(known - {'self'}))}"
