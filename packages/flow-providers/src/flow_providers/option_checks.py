"""Checks of options by their annotations. typeguard is imported when something is to be checked."""

from __future__ import annotations

import math
import typing
from collections.abc import Iterable, Mapping, Sequence
from types import UnionType

from flow_providers.option_records import options_of

_TEXTS = (str, bytes, bytearray)
_FORMS: Mapping[object, str] = {
    bool: "True or False", int: "a whole number", float: "a number", str: "text", type(None): "None",
    Sequence[str]: "a list of texts", tuple[int, int]: "a pair of whole numbers",
    tuple[int, ...]: "a tuple of whole numbers",
}  # fmt: skip


def check_options(record: object, name: str, error: type[Exception]) -> None:
    """Check the options of a dataclass that are not the defaults: by their annotations, and each by its own check.

    What has its default needs no check, so that nothing is imported for it.

    Args:
        record: Instance of a dataclass.
        name: What the options are of, for errors.
        error: Class of the errors.

    Raises:
        Exception: of that class, naming the option, what it must be and what it is.
    """
    changed = [option for option in options_of(record) if not _same(getattr(record, option.name), option.default)]
    if not changed:
        return
    from typeguard import TypeCheckError, check_type

    hints = typing.get_type_hints(type(record))
    for option in changed:
        value = getattr(record, option.name)
        if not option.untyped:
            if text_for_list(value, hints[option.name]):
                raise error(f"{name}: option {option.name}={value!r} must be a list, not text: its letters would count")
            form = form_of(hints[option.name])
            try:
                check_type(value, hints[option.name])
            except TypeCheckError as wrong_type:
                why = f"it must be {form}. {option.documentation}" if form else str(wrong_type)
                raise error(f"{name}: option {option.name}={value!r} has a wrong type: {why}") from None
            if wrong := wrong_number(value, hints[option.name]):
                raise error(f"{name}: option {option.name}={value!r} {wrong}")
        if option.check is not None and (wrong := option.check(value)):
            raise error(f"{name}: {option.name} {wrong}, not {value!r}")


def form_of(hint: object) -> str:
    """Return in words what an annotation allows, such as "a number or None"; empty where it is not that plain."""
    words = [_FORMS.get(kind, "") for kind in _kinds(hint)]
    return " or ".join(words) if all(words) else ""


def wrong_number(value: object, hint: object) -> str:
    """Return what is wrong with what Python takes for a number and is none: True, False and NaN; else nothing."""
    kinds = _kinds(hint)
    if isinstance(value, bool) and not {bool, object, typing.Any}.intersection(kinds):
        return f"must be {form_of(hint) or 'a number'}, not True or False" if {int, float} & {*kinds} else ""
    return f"must be {form_of(hint) or 'a number'}" if isinstance(value, float) and math.isnan(value) else ""


def text_for_list(value: object, hint: object) -> bool:
    """Return whether an option is, or holds, a text where its annotation wants a sequence of something.

    A text is a sequence of texts for Python's types, so no annotation refuses it.
    """
    kinds = _kinds(hint)
    if isinstance(value, _TEXTS):
        return not any(kind in (str, bytes, object, typing.Any) for kind in kinds) and any(map(_many, kinds))
    if not isinstance(value, Iterable):
        return False
    inner = [typing.get_args(kind)[0] for kind in kinds if _many(kind) and typing.get_args(kind)]
    return bool(inner) and isinstance(value, Sequence) and any(text_for_list(one, inner[0]) for one in value)


def _kinds(hint: object) -> tuple[object, ...]:
    return typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, UnionType) else (hint,)


def _many(kind: object) -> bool:
    origin = typing.get_origin(kind)
    return isinstance(origin, type) and issubclass(origin, Iterable) and not issubclass(origin, dict)


def _same(value: object, default: object) -> bool:
    return value is default or (type(value) is type(default) and value == default)
