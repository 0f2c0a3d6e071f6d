"""Values as bytes by value: what cloudpickle does, with code that still knows the file it was written in.

cloudpickle names the file of all code ``<dynamic-code>``, so tracebacks, profilers and ``faulthandler`` on a node would
not say where a function is written. Lines and columns it keeps.
"""

from __future__ import annotations

import io
import os
from collections import ChainMap
from collections.abc import Callable, MutableMapping
from functools import cached_property
from types import CodeType
from typing import TYPE_CHECKING, Any

import cloudpickle

from flow_core.remote.caches import CachedFunction, reduced_function, reduced_property

if TYPE_CHECKING:
    from pickle import PickleBuffer

_PROTOCOL = 5
_NAMELESS = "<dynamic-code>"
_DISPATCH: MutableMapping[type, Callable[[Any], Any]] = cloudpickle.Pickler.dispatch_table
_REDUCE_CODE = _DISPATCH[CodeType]


class Pickler(cloudpickle.Pickler):  # type: ignore[misc]  # cloudpickle has no types
    """The one pickler of what travels by value. Equal functions of one file give equal bytes."""

    def __init__(
        self,
        file: io.BytesIO,
        protocol: int = _PROTOCOL,
        buffer_callback: Callable[[PickleBuffer], bool | None] | None = None,
    ) -> None:
        files: dict[str, str] = {}
        own: dict[type, Callable[[Any], Any]] = {
            CodeType: lambda code: _reduced(code, files),
            CachedFunction: reduced_function,
            cached_property: reduced_property,
        }
        self.dispatch_table = ChainMap(own, _DISPATCH)
        super().__init__(file, protocol, buffer_callback)

    def reducer_override(self, obj: Any) -> Any:
        """Return how an object is made anew; classes by value come with a digest of what they are."""
        reduced = super().reducer_override(obj)
        return _with_state(obj, reduced) if isinstance(obj, type) else reduced


def dumps(value: object, buffer_callback: Callable[[PickleBuffer], bool | None] | None = None) -> bytes:
    """Pickle a value, protocol 5; functions and classes that no other process can import go by value.

    Raises:
        Exception: whatever the value's own methods or cloudpickle raise when something cannot be pickled.
    """
    with io.BytesIO() as file:
        Pickler(file, buffer_callback=buffer_callback).dump(value)
        return file.getvalue()


def reduced_class(cls: type) -> Any:
    """Return how a class is made anew by value, wherever it is from."""
    try:
        from cloudpickle.cloudpickle import _dynamic_class_reduce
    except ImportError:  # before version 3
        from cloudpickle.cloudpickle_fast import _dynamic_class_reduce
    return _with_state(cls, _dynamic_class_reduce(cls))


def _with_state(cls: type, reduced: Any) -> Any:
    if not isinstance(reduced, tuple) or len(reduced) != 6:
        return reduced  # by name
    from flow_core.remote.classes import set_state, state_of

    return (*reduced[:2], state_of(cls, reduced[2]), *reduced[3:5], set_state)


def _reduced(code: CodeType, files: dict[str, str]) -> tuple[Any, ...]:
    kind, arguments, *rest = _REDUCE_CODE(code)
    if _NAMELESS not in arguments:
        return kind, arguments, *rest  # a version of cloudpickle that keeps the name
    at = arguments.index(_NAMELESS)  # the file stands before the name, so it is the first
    return kind, (*arguments[:at], _file_of(code, files), *arguments[at + 1 :]), *rest


def _file_of(code: CodeType, files: dict[str, str]) -> str:
    """Return the path of a code's file, the same object for all code of one pickle: its bytes stand there once."""
    name = code.co_filename
    path = files.get(name)
    if path is None:
        written = name if name.startswith("<") else os.path.abspath(name)
        # A new object: if the pickle held it elsewhere too, bytes would depend on which strings are interned.
        path = files[name] = written.encode(errors="surrogateescape").decode(errors="surrogateescape")
    return path
