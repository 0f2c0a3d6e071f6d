"""Reads of values that tell whether they are as they were: elements, attributes, bytes, pickles, samples."""

from __future__ import annotations

import gc
import io
import pickle
from collections import defaultdict
from collections.abc import Callable, Mapping
from types import FunctionType, ModuleType, SimpleNamespace
from typing import Any

from flow_core.memo.code_facts import is_of_process
from flow_core.memo.digest import digest
from flow_core.remote.own_modules import is_local
from flow_core.remote.pickling_attributes import reduced_whole, slots_in

LARGE_BYTES = 64 << 10
"""A value that holds more bytes (64 KiB) that can change, at all depths, is large."""

Read = Callable[[Any], "tuple[object, ...] | list[object]"]
"""Gives objects that are compared by identity."""
Content = Callable[[Any], object]
"""Gives what is compared by equality."""

_REDUCING = frozenset({"__reduce__", "__reduce_ex__", "__getstate__"})
_HEAP_TYPE = 1 << 9  # Py_TPFLAGS_HEAPTYPE: classes made by Python code, whose instances are their attributes


def of_dict(value: Mapping[object, object]) -> tuple[object, ...]:
    """Return keys and values of a dict."""
    return (*value, *value.values())


def of_factory(value: defaultdict[object, object]) -> tuple[object, ...]:
    """Return the function that makes missing values of a defaultdict."""
    return (value.default_factory,)


def of_class(cls: type) -> tuple[object, ...]:
    """Return bases and attributes."""
    return (cls.__bases__, *cls.__dict__.values())


def of_object(value: object) -> tuple[object, ...]:
    """Return class, attributes and slots."""
    state = getattr(value, "__dict__", None) or {}
    slots = _slots_of(type(value))
    return (type(value), *state, *state.values(), *(getattr(value, slot, None) for slot in slots))


def of_attributes(value: object) -> tuple[object, ...]:
    """Return class, attributes, and slots of classes of the user's own."""
    state = getattr(value, "__dict__", None) or {}
    slots = _slots_of(type(value), own=True)
    return (type(value), *state, *state.values(), *(getattr(value, slot, None) for slot in slots))


def every(step: int) -> Read:
    """Return a function that reads every ``step``-th element of a list."""
    return lambda value: value[::step]


def at_places(places: range) -> Read:
    """Return a function that reads elements of a container that cannot be sliced."""
    return lambda value: [value[place] for place in places]


def at_keys(keys: list[object]) -> Read:
    """Return a function that reads some values of a dict."""
    return lambda value: [value[key] for key in keys]


def named_attributes(names: list[str]) -> Read:
    """Return a function that reads some attributes of an object."""
    return lambda value: [value.__dict__[name] for name in names]


def is_simple(cls: type) -> bool:
    """Tell whether a class is the user's own and its instances are what their attributes are, and nothing else."""
    if cls is SimpleNamespace:
        return True
    return is_local(cls.__module__) and all(
        base.__flags__ & _HEAP_TYPE and _REDUCING.isdisjoint(base.__dict__) for base in cls.__mro__[:-1]
    )


def behind(view: object) -> list[object]:
    """Return what a view of a dict, or of a mapping, shows."""
    # A mappingproxy has no attribute for what it shows; the collector knows what it refers to.
    return gc.get_referents(view)


def _slots_of(cls: type, own: bool = False) -> list[str]:
    return [slot for base in cls.__mro__ if not own or is_local(base.__module__) for slot in slots_in(base)]


def is_array(value: object) -> bool:
    """Tell whether a value is an array of numpy, or says that it is like one."""
    return hasattr(value, "__array_interface__") and hasattr(value, "nbytes") and hasattr(value, "dtype")


def of_array(value: Any) -> object:
    """Return what an array holds."""
    # Type and shape can be set in place without a change of the bytes.
    return str(value.dtype), value.shape, _short(value.tobytes())


def sample_of_array(samples: int) -> Content:
    """Return a function that reads at most ``samples`` elements of an array."""

    def read(value: Any) -> object:
        """Return type, shape and a sample of an array's elements."""
        step = max(1, -(-value.size // samples))
        return str(value.dtype), value.shape, value.flat[::step].tobytes()

    return read


def sample_of_bytes(samples: int) -> Content:
    """Return a function that reads at most ``samples`` bytes of an object with a buffer."""

    def read(value: Any) -> object:
        """Return the length and a sample of the bytes of a buffer."""
        # Released at once: a buffer that is held keeps its owner from growing.
        with memoryview(value) as view, view.cast("B") as flat:
            return len(flat), flat[:: max(1, -(-len(flat) // samples))].tobytes()

    return read


class TooLarge(Exception):
    """A pickle is larger than it may be."""


def pickled(limit: int | None, found: list[object] | None = None) -> Callable[[object], bytes]:
    """Return a function that pickles values; functions, classes and modules in them count by identity.

    Args:
        limit: Most bytes; above them TooLarge is raised.
        found: Where to put these functions, classes and modules.
    """

    def read(value: object) -> bytes:
        """Return the pickle of a value, or its digest. Raises TooLarge, and what the value's own methods raise."""
        # Bounded while it is written, since a pickle that is too large takes its time and its memory before it is known
        # to be.
        file = io.BytesIO() if limit is None else _Bounded(limit)
        _Pickler(file, [] if found is None else found).dump(value)
        return _short(file.getvalue())

    return read


class _Bounded(io.BytesIO):
    def __init__(self, limit: int) -> None:
        super().__init__()
        self._limit = limit

    def write(self, data: Any, /) -> int:
        """Write, unless there would be too much. Raises TooLarge."""
        if self.tell() + memoryview(data).nbytes > self._limit:
            raise TooLarge
        return super().write(data)


class _Pickler(pickle.Pickler):
    def __init__(self, file: io.BytesIO, found: list[object]) -> None:
        super().__init__(file, 5)
        self._found = found

    def reducer_override(self, obj: Any) -> Any:
        """Return the identity of code in the place of its pickle, and of other objects all of their attributes."""
        if obj is _identical or not (isinstance(obj, (FunctionType, type, ModuleType)) or is_of_process(obj)):
            return reduced_whole(obj)
        self._found.append(obj)
        # By identity: code in it is looked at by itself, and its pickle would take long.
        return _identical, (id(obj),)


def _identical(identity: int) -> None:
    """Stand in pickles for the object of an identity; never called."""


def _short(data: bytes) -> bytes:
    """Return bytes that stand for some: of many their digest, since they are kept as long as the function."""
    return data if len(data) <= LARGE_BYTES else digest(data)
