"""What to look at to know that a function is as it was: everything it names, reached through the user's own code.

What cannot change is compared by identity alone, so a look costs some tens of nanoseconds a name. Of what can change in
place the contents are looked at: the elements of containers by identity, of arrays the bytes, of other objects their
pickle. Of a value that is large only samples are looked at, unless all is asked for.
"""

from __future__ import annotations

import pickle
import sys
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sized
from datetime import date, time, timedelta, tzinfo
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from functools import lru_cache, partial
from operator import is_
from pathlib import PurePath
from re import Pattern
from types import (
    BuiltinFunctionType,
    CellType,
    CodeType,
    FunctionType,
    GenericAlias,
    MethodType,
    MethodWrapperType,
    ModuleType,
    SimpleNamespace,
    WrapperDescriptorType,
)
from typing import Any

from flow_core.files import File
from flow_core.guard import pass_signal
from flow_core.memo.digest import digest
from flow_core.memo.facts import ABSENT, facts_of, is_local, is_of_process, members
from flow_core.remote.contents import CLASS_NOISE

LARGE_ELEMENTS = 10_000
"""A value that holds more elements, at all depths, is large."""
LARGE_BYTES = 64 << 10
"""A value that holds more bytes that can change, at all depths, is large."""
SAMPLE = 256
"""So many elements, or pieces of 64 bytes, of a large value are looked at."""
_PIECE = 64

_FIXED = (
    *(type(None), bool, int, float, complex, str, bytes, range, slice, type(...), type(NotImplemented)),
    *(BuiltinFunctionType, MethodWrapperType, WrapperDescriptorType, CodeType, GenericAlias, ModuleType),
    *(PurePath, File, Enum, date, time, timedelta, tzinfo, Decimal, Fraction, Pattern),
)

Read = Callable[[Any], "tuple[object, ...] | list[object]"]
Name = tuple[dict[str, Any], str, object]
"""A module's names, one of them, its value."""


class Looks:
    """Everything to be looked at, and what it was. Any thread.

    Attributes:
        unchanged: Tells whether all is as it was.
        named: What functions name of the global names of modules, each once.
        code: The user's own functions and classes that were met.
        imported: Modules and attributes of them that functions use by imports of their own.
    """

    __slots__ = ("code", "imported", "named", "unchanged")

    def __init__(self, function: Callable[..., object], whole: bool) -> None:
        """Look for the first time; with ``whole`` at all of large values too."""
        found = _Finder(whole)
        found.begin(function)
        self.named: tuple[Name, ...] = tuple(found.named)
        self.code: tuple[Callable[..., object], ...] = tuple(found.code)
        self.imported = found.imported
        self.unchanged: Callable[[], bool] = found.checks.made(found.rest())


class _Rest:
    """Looks into what can change in place."""

    __slots__ = ("_contents", "_reads")

    def __init__(
        self,
        reads: list[tuple[Read, object, tuple[object, ...]]],
        contents: list[tuple[Callable[[Any], object], object, object]],
    ) -> None:
        self._reads = reads
        self._contents = contents

    def unchanged(self) -> bool:
        """Tell whether all is as it was. May raise, if it is not."""
        for read, source, then in self._reads:
            now = read(source)
            if len(now) != len(then) or not all(map(is_, now, then)):
                return False
        for content, source, was in self._contents:  # noqa: SIM110  (all() makes an object on the way of each call)
            if content(source) != was:
                return False
        return True


class _Checks:
    """Comparisons by identity, made into one function: at some 20 ns each nothing else is as fast.

    Functions of the same form share their code, so a value that changes often costs no compilation.
    """

    def __init__(self) -> None:
        self._given: list[object] = []
        self._known: dict[int, str] = {}
        self._tests: list[str] = []

    def name(self, names: dict[str, Any], name: str, value: object) -> None:
        """Have a name mean the same object."""
        self._tests.append(f"{self._of(names)}[{name!r}] is {self._of(value)}")

    def absent(self, names: dict[str, Any], name: str) -> None:
        """Have a name be none."""
        self._tests.append(f"{name!r} not in {self._of(names)}")

    def attribute(self, owner: object, attribute: str) -> None:
        """Have an attribute be the same object."""
        self._tests.append(f"{self._of(owner)}.{attribute} is {self._of(getattr(owner, attribute))}")

    def made(self, rest: _Rest | None) -> Callable[[], bool]:
        """Return the function. A name or a variable that is gone, or whatever an object raises, is a change."""
        tests = [*self._tests, f"{self._of(rest.unchanged)}()"] if rest is not None else self._tests
        text = " and ".join(tests) or "True"
        given = ", ".join(f"v{number}" for number in range(len(self._given)))
        return _maker(given, text)(*self._given)

    def _of(self, value: object) -> str:
        if value is None:
            return "None"
        known = self._known.get(id(value))
        if known is None:
            known = self._known[id(value)] = f"v{len(self._given)}"
            self._given.append(value)  # which keeps it, so its id stays its own
        return known


@lru_cache(maxsize=1024)
def _maker(given: str, text: str) -> Callable[..., Callable[[], bool]]:
    source = f"""
def make({given}):
    def unchanged():
        try:
            return {text}
        except BaseException as error:
            pass_signal(error)
            return False
    return unchanged
"""
    names: dict[str, Any] = {"pass_signal": pass_signal}
    exec(source, names)  # names of variables as literals, and nothing else, come from outside
    made: Callable[..., Callable[[], bool]] = names["make"]
    return made


class _Large(Exception):
    """The value that is being looked at is large."""


class _Finder:
    """Finds what to look at, function by function."""

    def __init__(self, whole: bool) -> None:
        self.named: list[Name] = []
        self.code: list[Callable[..., object]] = []
        self.imported: set[tuple[str, str]] = set()
        self.checks = _Checks()
        self._whole = whole
        self._reads: list[tuple[Read, object, tuple[object, ...]]] = []
        self._contents: list[tuple[Callable[[Any], object], object, object]] = []
        self._names: set[tuple[int, str]] = set()
        self._cells: dict[int, CellType] = {}
        self._seen: dict[int, object] = {}
        self._new: list[int] = []
        self._queue: deque[FunctionType] = deque()
        self._elements = 0
        self._bytes = 0

    def begin(self, function: Callable[..., object]) -> None:
        """Find all."""
        if isinstance(function, FunctionType):
            self._seen[id(function)] = function
            self._queue.append(function)
        else:
            self._name(function)
        while self._queue:
            self._function(self._queue.popleft())

    def rest(self) -> _Rest | None:
        """Return what is not compared by identity alone."""
        return _Rest(self._reads, self._contents) if self._reads or self._contents else None

    def _function(self, function: FunctionType) -> None:
        self.code.append(function)
        for attribute in ("__code__", "__defaults__", "__kwdefaults__"):
            self.checks.attribute(function, attribute)
        for value in (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()):
            self._name(value)
        if function.__kwdefaults__:
            self._watch(_of_dict, function.__kwdefaults__)
        for cell in function.__closure__ or ():
            self._cell(cell)
        facts, names = facts_of(function.__code__), function.__globals__
        for name in facts.names:
            self._global(names, name, names.get(name, ABSENT))
        for member in members(function, facts):
            self._global(member.module.__dict__, member.attribute, member.value)
            if member.imported:
                self.imported.add((member.module.__name__, member.attribute))

    def _cell(self, cell: CellType) -> None:
        if id(cell) in self._cells:
            return
        self._cells[id(cell)] = cell
        try:
            content = cell.cell_contents
        except ValueError:
            self._contents.append((_is_unset, cell, True))
            return
        self.checks.attribute(cell, "cell_contents")
        self._name(content)

    def _global(self, names: dict[str, Any], name: str, value: object) -> None:
        if (id(names), name) in self._names:
            return
        self._names.add((id(names), name))
        if value is ABSENT:
            self.checks.absent(names, name)
        else:
            self.checks.name(names, name, value)
            self.named.append((names, name, value))
            self._name(value)

    def _name(self, value: object) -> None:
        """Look at something that a function names; if it turns out to be large, at samples of it."""
        reads, contents = len(self._reads), len(self._contents)
        self._new.clear()
        self._elements = self._bytes = 0
        try:
            self._value(value)
        except BaseException as error:  # large, nested too deeply, or an object that does not let itself be looked at
            pass_signal(error)
            del self._reads[reads:], self._contents[contents:]
            for key in self._new:
                del self._seen[key]
            self._quietly(self._sample, value)

    @staticmethod
    def _quietly(look: Callable[[object], None], value: object) -> None:
        try:
            look(value)
        except BaseException as error:
            pass_signal(error)

    # -- one value

    def _value(self, value: object) -> None:
        if isinstance(value, _FIXED) or id(value) in self._seen:
            return
        self._seen[id(value)] = value
        self._new.append(id(value))
        if isinstance(value, FunctionType):
            if is_local(value.__module__):
                self._queue.append(value)
        elif isinstance(value, type):
            self._class(value)
        elif isinstance(getattr(value, "__wrapped__", None), FunctionType):
            self._value(value.__wrapped__)  # type: ignore[attr-defined]  # it was there a line before
        elif isinstance(value, MethodType):
            self._all((value.__func__, value.__self__))
        elif isinstance(value, partial):
            self._all((value.func, value.args, value.keywords))
        elif isinstance(value, (staticmethod, classmethod)):
            self._value(value.__func__)
        elif isinstance(value, property):
            self._all((value.fget, value.fset, value.fdel))
        else:
            self._data(value)

    def _data(self, value: object) -> None:
        cls = type(value)
        if isinstance(value, (tuple, frozenset)):
            self._count(len(value))
            self._all(value)
        elif isinstance(value, dict):
            self._watch(_of_dict, value)
            self._all(_of_dict(value))
        elif isinstance(value, (list, set, deque)):
            self._watch(tuple, value)
            self._all(value)
        elif _is_array(value):
            self._array(value)
            return
        elif not _is_simple(cls):
            self._opaque(value)
            return
        if getattr(value, "__dict__", None) or cls.__module__ != "builtins":
            self._watch(_of_object, value)
            self._all(_of_object(value))

    def _all(self, values: Iterable[object]) -> None:
        for value in values:
            if not isinstance(value, _FIXED):
                self._value(value)

    def _class(self, cls: type) -> None:
        if not is_local(cls.__module__) or issubclass(cls, Enum):
            return
        self.code.append(cls)
        self._watch(_of_class, cls)
        self._all(value for name, value in vars(cls).items() if name not in CLASS_NOISE)
        self._all(cls.__bases__)

    def _array(self, value: Any) -> None:
        size = int(value.nbytes)
        if getattr(value.dtype, "hasobject", False):
            size += 8 * LARGE_BYTES * (not self._whole)  # what its objects hold is not known
        self._count(0, size)
        self._contents.append((_of_array, value, _of_array(value)))

    def _opaque(self, value: object) -> None:
        """Look at an object by its pickle; what has none (locks, handles) is known by identity alone."""
        if is_of_process(value):
            return
        if not self._whole and sys.getsizeof(value, 0) > LARGE_BYTES:
            raise _Large
        try:
            data = pickle.dumps(value, 5)
        except BaseException as error:
            pass_signal(error)
            return
        self._count(0, len(data))
        self._contents.append((_pickled, value, _short(data)))

    # -- how

    def _watch(self, read: Read, source: object) -> None:
        if isinstance(source, Sized):
            self._count(len(source))
        self._reads.append((read, source, tuple(read(source))))

    def _count(self, elements: int, size: int = 0) -> None:
        self._elements += elements
        self._bytes += size
        if not self._whole and (self._elements > LARGE_ELEMENTS or self._bytes > LARGE_BYTES):
            raise _Large

    def _sample(self, value: object) -> None:
        """Look at samples of a large value, at even distances, and at its size."""
        if isinstance(value, (list, tuple, deque)):
            places = range(0, len(value), max(1, len(value) // SAMPLE))
            self._sampled(lambda v: [v[place] for place in places], value)
        elif isinstance(value, dict):
            keys = list(value)[:: max(1, len(value) // SAMPLE)]
            self._sampled(lambda v: [v[key] for key in keys], value)
        elif isinstance(value, (set, frozenset)):
            self._contents.append((len, value, len(value)))
        elif _is_array(value) and not getattr(value.dtype, "hasobject", False):  # type: ignore[attr-defined]  # arrays
            self._contents.append((_sample_of_array, value, _sample_of_array(value)))
        elif isinstance(value, bytearray):
            self._contents.append((_sample_of_bytes, value, _sample_of_bytes(value)))
        else:
            self._contents.append((sys.getsizeof, value, sys.getsizeof(value)))

    def _sampled(self, read: Read, value: Any) -> None:
        self._contents.append((len, value, len(value)))
        self._reads.append((read, value, tuple(read(value))))


def _is_unset(cell: CellType) -> bool:
    try:
        cell.cell_contents  # noqa: B018  (it raises)
    except ValueError:
        return True
    return False


def _of_dict(value: Mapping[object, object]) -> tuple[object, ...]:
    return (*value, *value.values())


def _of_class(cls: type) -> tuple[object, ...]:
    return (cls.__bases__, *cls.__dict__.values())


def _is_simple(cls: type) -> bool:
    """Tell whether a class is the user's own and its instances are what their attributes are, and nothing else."""
    if not is_local(cls.__module__) and cls is not SimpleNamespace:
        return False
    own = cls.__mro__[:-1]
    return cls is SimpleNamespace or all(
        base.__flags__ & _HEAP_TYPE and _REDUCING.isdisjoint(base.__dict__) for base in own
    )


_REDUCING = frozenset({"__reduce__", "__reduce_ex__", "__getstate__"})
_HEAP_TYPE = 1 << 9


def _of_object(value: object) -> tuple[object, ...]:
    state = getattr(value, "__dict__", None) or {}
    slots = _slots_of(type(value))
    return (type(value), *state, *state.values(), *(getattr(value, slot, None) for slot in slots))


def _slots_of(cls: type) -> list[str]:
    found: list[str] = []
    for base in cls.__mro__:
        slots = base.__dict__.get("__slots__", ())
        for slot in (slots,) if isinstance(slots, str) else tuple(slots):
            if slot not in ("__dict__", "__weakref__"):
                hidden = slot.startswith("__") and not slot.endswith("__")
                found.append(f"_{base.__name__.lstrip('_')}{slot}" if hidden else slot)
    return found


def _is_array(value: object) -> bool:
    return hasattr(value, "__array_interface__") and hasattr(value, "nbytes") and hasattr(value, "dtype")


def _of_array(value: Any) -> object:
    if getattr(value.dtype, "hasobject", False):
        return _pickled(value)
    return str(value.dtype), value.shape, _short(value.tobytes())


def _sample_of_array(value: Any) -> object:
    flat, length = value.flat, _PIECE // max(1, value.itemsize) + 1
    places = range(0, value.size, max(1, value.size // SAMPLE))
    return str(value.dtype), value.shape, [flat[place : place + length].tobytes() for place in places]


def _sample_of_bytes(value: bytearray) -> object:
    places = range(0, len(value), max(1, len(value) // SAMPLE))
    return len(value), [bytes(value[place : place + _PIECE]) for place in places]


def _pickled(value: object) -> bytes:
    return _short(pickle.dumps(value, 5))


def _short(data: bytes) -> bytes:
    """Return bytes that stand for some: of many their digest, since they are kept as long as the function."""
    return data if len(data) <= LARGE_BYTES else digest(data)
