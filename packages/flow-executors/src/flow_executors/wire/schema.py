"""Control messages as JSON with a schema: a frozen dataclass gives the fields and their types.

Fields unknown to the reader are ignored, fields missing take their default: so a newer and an older version can talk.
"""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Hashable
from functools import lru_cache
from typing import Final, TypeVar

from flow_executors.errors import BadMessage
from flow_executors.wire.kinds import MAX_JSON, Buffer

T = TypeVar("T")

LEFT_OUT: Final = {"left_out": True}
"""Metadata of a field that could not be None in an older version: its default stands for None there."""


def encode(record: object) -> bytes:
    """Return a dataclass instance as compact JSON in UTF-8. Fields with ``LEFT_OUT`` are left out where None."""
    return json.dumps(_plain(record), separators=(",", ":")).encode()


def decode(cls: type[T], data: Buffer) -> T:
    """Build an instance of a dataclass from JSON.

    Raises:
        BadMessage: no JSON, no object, a field of a wrong type, or one without default missing.
    """
    return _build(cls, parse(data), cls.__name__)


def parse(data: Buffer) -> object:
    """Parse JSON of foreign origin.

    Raises:
        BadMessage: no JSON, too deep, or too large.
    """
    if len(data) > MAX_JSON:
        raise BadMessage(f"JSON of {len(data)} bytes: at most {MAX_JSON} are read")
    try:
        # NaN and Infinity are no JSON: other readers would refuse what this one has passed on.
        value: object = json.loads(str(data, "utf-8"), parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise BadMessage(f"not JSON: {error}") from None
    return value


def _no_constant(text: str) -> object:
    raise ValueError(f"{text} is no number here")


def _plain(value: object) -> object:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        given = ((field, getattr(value, field.name)) for field in dataclasses.fields(value))
        return {
            field.name: _plain(item)
            for field, item in given
            if item is not None or LEFT_OUT.keys().isdisjoint(field.metadata)
        }
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    return value


@lru_cache(maxsize=64)
def _fields(cls: Hashable) -> tuple[tuple[str, object, bool], ...]:
    hints = typing.get_type_hints(cls)
    required = dataclasses.MISSING
    return tuple(
        (field.name, hints[field.name], field.default is required and field.default_factory is required)
        for field in dataclasses.fields(cls)  # type: ignore[arg-type]  # only ever called with dataclasses
    )


def _build(cls: type[T], value: object, where: str) -> T:
    if not isinstance(value, dict):
        raise BadMessage(f"{where}: an object is needed, not {type(value).__name__}")
    found: dict[str, object] = {}
    for name, hint, required in _fields(typing.cast(Hashable, cls)):
        if name in value:
            found[name] = _convert(hint, value[name], f"{where}.{name}")
        elif required:
            raise BadMessage(f"{where}: field {name} is missing")
    if typing.cast(typing.Any, cls).__dataclass_params__.init:
        return cls(**found)
    # A record whose constructor takes what users write: what it made of that is what came.
    made = object.__new__(cls)
    for name, item in found.items():
        object.__setattr__(made, name, item)
    return made


def _convert(hint: object, value: object, where: str) -> object:
    origin = typing.get_origin(hint)
    if origin is types.UnionType or origin is typing.Union:
        return _union(typing.get_args(hint), value, where)
    if origin is tuple:
        return _tuple(typing.get_args(hint), value, where)
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return _build(hint, value, where)
    # JSON does not tell 1.0 from 1; above 2**53 a float would be another number.
    if hint is float and type(value) is int and abs(value) < 1 << 53:
        return float(value)
    # Values go into structs of 64 bits, where a larger one would raise in the midst of packing.
    if hint is int and type(value) is int and not -(1 << 63) <= value < 1 << 64:
        raise BadMessage(f"{where}: {str(value)[:24]} does not fit 64 bits")
    if type(value) is hint or (hint is type(None) and value is None):
        return value
    raise BadMessage(f"{where}: {getattr(hint, '__name__', hint)} needed, not {type(value).__name__}")


def _union(hints: tuple[object, ...], value: object, where: str) -> object:
    problem: BadMessage | None = None
    for hint in hints:
        try:
            return _convert(hint, value, where)
        except BadMessage as error:
            problem = problem or error
    raise problem or BadMessage(where)


def _tuple(hints: tuple[object, ...], value: object, where: str) -> tuple[object, ...]:
    if not isinstance(value, list):
        raise BadMessage(f"{where}: a list is needed, not {type(value).__name__}")
    if len(hints) == 2 and hints[1] is Ellipsis:
        return tuple(_convert(hints[0], item, where) for item in value)
    if len(hints) != len(value):
        raise BadMessage(f"{where}: {len(hints)} items needed, not {len(value)}")
    return tuple(_convert(hint, item, where) for hint, item in zip(hints, value, strict=True))
