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
from flow_core.remote.pickling_attributes import reduced_whole
from flow_core.remote.source_names import OF_GLOBALS, named_in_source

if TYPE_CHECKING:
    from pickle import PickleBuffer

_PROTOCOL = 5  # of pickle; the newest in all supported versions
_NAMELESS = "<dynamic-code>"
_DISPATCH: MutableMapping[type, Callable[[Any], Any]] = cloudpickle.Pickler.dispatch_table
_REDUCE_CODE = _DISPATCH[CodeType]


class ByValuePickler(cloudpickle.Pickler):  # type: ignore[misc]  # cloudpickle has no types
    """The one pickler of what travels by value. Equal functions of one file give equal bytes."""

    def __init__(
        self,
        file: io.BytesIO,
        protocol: int = _PROTOCOL,
        buffer_callback: Callable[[PickleBuffer], bool | None] | None = None,
    ) -> None:
        # One for each pickle: equal paths are the same object, which stands once in its bytes.
        files: dict[str, str] = {}
        own: dict[type, Callable[[Any], Any]] = {
            CodeType: lambda code: _reduced(code, files),
            CachedFunction: reduced_function,
            cached_property: reduced_property,
            memoryview: _reduced_view,
        }
        # Before cloudpickle's own table and without a change to it: other users of cloudpickle in this process see
        # theirs.
        self.dispatch_table = ChainMap(own, _DISPATCH)
        super().__init__(file, protocol, buffer_callback)

    def _dynamic_function_reduce(self, func: Any) -> Any:
        """Return how a function is made anew; globals that it names by constants come too."""
        reduced = super()._dynamic_function_reduce(func)
        # cloudpickle takes the globals that the code names, and would leave out those that it takes by texts.
        names = _named_by_constants(func.__code__) & func.__globals__.keys()
        if names and isinstance(reduced, tuple):
            reduced[2][1]["__globals__"].update({name: func.__globals__[name] for name in names})
        return reduced

    def reducer_override(self, obj: Any) -> Any:
        """Return how an object is made anew; classes by value come with what they are made of.

        Attributes that an object's own pickle leaves out come too.
        """
        reduced = super().reducer_override(obj)
        if isinstance(obj, type):
            return _with_state(obj, reduced)
        return reduced_whole(obj) if reduced is NotImplemented else reduced


def _reduced_view(view: memoryview) -> tuple[Any, ...]:
    """Return how a view is made anew; cloudpickle would make bytes of it."""
    return _view, (view.tobytes(), view.format, view.shape)


def _view(data: bytes, form: str, shape: tuple[int, ...]) -> memoryview:
    return memoryview(data).cast(form, shape) if data else memoryview(data)  # type: ignore[call-overload]  # a format


def _named_by_constants(code: CodeType) -> set[str]:
    """Return what may be names of globals in ``globals()["LIMIT"]``, ``eval("x + LIMIT")`` and the like."""
    found: set[str] = set()
    # Texts count only where the code could use them as names, else any text would bring a global along.
    by_name = not OF_GLOBALS.isdisjoint(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            found |= _named_by_constants(constant)
        elif by_name and isinstance(constant, str):
            found |= named_in_source(constant)
    return found


def dumps(value: object, buffer_callback: Callable[[PickleBuffer], bool | None] | None = None) -> bytes:
    """Pickle a value, protocol 5; functions and classes that no other process can import go by value.

    Raises:
        Exception: whatever the value's own methods or cloudpickle raise when something cannot be pickled.
    """
    with io.BytesIO() as file:
        ByValuePickler(file, buffer_callback=buffer_callback).dump(value)
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
    # Only classes by value need it; set_state must be found by its name on the other side.
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
