"""Lists of texts: a single text is one too for Python, and would be taken letter by letter."""

from __future__ import annotations

import typing
from collections.abc import Iterable, Sequence
from types import UnionType

from flow_providers.errors import BadOption

_TEXTS = (str, bytes, bytearray)


def listed(values: Iterable[str], where: str, what: str = "job ids") -> list[str]:
    """Return the values as a list.

    Args:
        values: The argument of the caller.
        where: The function it was given to, for the error.
        what: The kind of the values, for the error.

    Raises:
        BadOption: it is a single text, or no list at all.
    """
    # A text is a sequence of texts for Python's types, so no annotation refuses it.
    if isinstance(values, _TEXTS):
        raise BadOption(f"{where} takes a list of {what}, not the single text {values!r}: write [{values!r}]")
    if not isinstance(values, Iterable):
        raise BadOption(f"{where} takes a list of {what}, not {values!r}")
    return list(values)


def text_for_list(value: object, hint: object) -> bool:
    """Return whether an option is, or holds, a text where its annotation wants a sequence of something."""
    kinds = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, UnionType) else (hint,)
    if isinstance(value, _TEXTS):
        return not any(kind in (str, bytes, object, typing.Any) for kind in kinds) and any(map(_many, kinds))
    if not isinstance(value, Iterable):
        return False
    inner = [typing.get_args(kind)[0] for kind in kinds if _many(kind) and typing.get_args(kind)]
    return bool(inner) and isinstance(value, Sequence) and any(text_for_list(one, inner[0]) for one in value)


def _many(kind: object) -> bool:
    origin = typing.get_origin(kind)
    return isinstance(origin, type) and issubclass(origin, Iterable) and not issubclass(origin, dict)
