"""Finds what to look at to know that a function is as it was, function by function, value by value."""

from __future__ import annotations

import sys
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Sized
from datetime import date, datetime, time, timedelta, tzinfo
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from functools import cached_property, partial, partialmethod, singledispatchmethod
from pathlib import PurePath
from re import Pattern
from types import (
    BuiltinFunctionType,
    CellType,
    ClassMethodDescriptorType,
    CodeType,
    FunctionType,
    GenericAlias,
    GetSetDescriptorType,
    MappingProxyType,
    MemberDescriptorType,
    MethodDescriptorType,
    MethodType,
    MethodWrapperType,
    ModuleType,
    WrapperDescriptorType,
)
from typing import Any, NamedTuple

from flow_core.files import File
from flow_core.guard import pass_signal
from flow_core.memo.facts import ABSENT, Member, facts_of, is_local, is_of_process, members
from flow_core.memo.held import HeldModules
from flow_core.remote.caches import CachedFunction
from flow_core.remote.contents import CLASS_NOISE
from flow_core.snapshot import reads
from flow_core.snapshot.checks import Checks
from flow_core.snapshot.reads import LARGE_BYTES, Content, Read

LARGE_ELEMENTS = 10_000
"""A value that holds more elements, at all depths, is large."""
SAMPLE = 256
"""So many elements of a large container, or bytes of a large array, are looked at."""

_ATOMS: frozenset[type] = frozenset(
    {
        *(type(None), bool, int, float, complex, str, bytes, range, slice, type(...), type(NotImplemented), CodeType),
        *(WrapperDescriptorType, MethodDescriptorType, ClassMethodDescriptorType, GetSetDescriptorType),
        *(MemberDescriptorType, GenericAlias, File, date, datetime, time, timedelta, Decimal, Fraction, Pattern),
    }
)
"""Exact types of what cannot change."""
_FIXED = (
    *(int, float, complex, str, bytes, PurePath, File, Enum, date, time, timedelta, tzinfo, Decimal, Fraction),
    *(Pattern, GenericAlias),
)
"""Types of what cannot change but by attributes that subclasses of the user's own have."""
_VIEWS: tuple[type, ...] = (MappingProxyType, type({}.keys()), type({}.values()), type({}.items()))
_CODE = (FunctionType, MethodType, partial, partialmethod, type, ModuleType)

Name = tuple[dict[str, Any], str, object]
"""A module's names, one of them, its value."""


class _Measure(NamedTuple):
    """What is large: of containers and arrays that have more, so many samples are looked at."""

    elements: int
    bytes: int
    samples: int


_WHOLE = _Measure(sys.maxsize, sys.maxsize, sys.maxsize)
_MEASURES = (
    _Measure(LARGE_ELEMENTS, LARGE_BYTES, SAMPLE),
    _Measure(SAMPLE, 4096, SAMPLE),
    _Measure(32, 256, 32),
    _Measure(4, 64, 4),
)
"""Tried one after the other, until all that a value holds is not more than the first says."""


class _Large(Exception):
    """All that a value holds is large."""


class Finder:
    """Finds what to look at.

    Attributes:
        named: What functions name of the global names of modules, each once.
        imported: Modules and attributes of them that functions use by imports of their own.
        checks: Comparisons by identity.
        reads: What is read and compared by identity.
        contents: What is read and compared by equality.
        kept: Objects that are known by their ids, to be kept.
    """

    def __init__(self, whole: bool) -> None:
        self.named: list[Name] = []
        self.imported: set[tuple[str, str]] = set()
        self.checks = Checks()
        self.reads: list[tuple[Read, object, tuple[object, ...]]] = []
        self.contents: list[tuple[Content, object, object]] = []
        self.kept: list[object] = []
        self._whole = whole
        self._code: dict[int, Callable[..., object]] = {}
        self._caches: dict[int, Callable[..., object]] = {}
        self._held = HeldModules()
        self._names: set[tuple[int, str]] = set()
        self._cells: dict[int, CellType] = {}
        self._seen: dict[int, object] = {}
        self._new: list[int] = []
        self._queue: deque[FunctionType] = deque()
        self._pending: deque[object] = deque()
        self._measure = _WHOLE
        self._elements = self._bytes = 0

    @property
    def code(self) -> tuple[Callable[..., object], ...]:
        """The user's own functions and classes."""
        return tuple(self._code.values())

    @property
    def caches(self) -> tuple[Callable[..., object], ...]:
        """Functions of the user's own that remember their results."""
        return tuple(self._caches.values())

    def begin(self, function: Callable[..., object]) -> None:
        """Find all that a function names."""
        if isinstance(function, FunctionType):
            self._to_function(function)
        else:
            self._name(function)
        while self._queue or (left := self._held.left()):
            if self._queue:
                self._function(self._queue.popleft())
            else:
                for member in left:
                    self._member(member)

    # -- functions

    def _to_function(self, function: FunctionType) -> None:
        if id(function) not in self._code:
            self._code[id(function)] = function
            self._queue.append(function)

    def _function(self, function: FunctionType) -> None:
        for attribute in ("__code__", "__defaults__", "__kwdefaults__"):
            self.checks.attribute(function, attribute)
        self.checks.attributes(function)
        for value in (
            *(function.__defaults__ or ()),
            *(function.__kwdefaults__ or {}).values(),
            *function.__dict__.values(),
        ):
            self._name(value)
        if function.__kwdefaults__:
            given: dict[Any, Any] = function.__kwdefaults__
            self.reads.append((reads.of_dict, given, reads.of_dict(given)))
        for cell in function.__closure__ or ():
            self._cell(cell)
        facts, names = facts_of(function.__code__), function.__globals__
        self._held.code(function, facts)
        for name in facts.names:
            self._global(names, name, names.get(name, ABSENT))
        for member in members(function, facts):
            self._member(member)

    def _member(self, member: Member) -> None:
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
            self.contents.append((_is_unset, cell, True))
            return
        self.checks.attribute(cell, "cell_contents")
        self._name(content, of_name=True)

    def _global(self, names: dict[str, Any], name: str, value: object) -> None:
        if (id(names), name) in self._names:
            return
        self._names.add((id(names), name))
        if value is ABSENT:
            self.checks.absent(names, name)
        else:
            self.checks.name(names, name, value)
            self.named.append((names, name, value))
            self._name(value, of_name=True)

    # -- all that one name means

    def _name(self, value: object, of_name: bool = False) -> None:
        """Look at something that a function names; of what turns out to be large at samples.

        A module that it names directly is looked at by the attributes that are taken of it there.
        """
        if of_name and issubclass(type(value), ModuleType):
            return
        measures = (_WHOLE,) if self._whole else _MEASURES
        for measure in measures:
            self._measure = measure
            if self._walked(value, last=measure is measures[-1]):
                return

    def _walked(self, value: object, last: bool) -> bool:
        """Look at a value and all that it holds, what is near first; False if that is too much."""
        before = len(self.reads), len(self.contents), len(self.kept)
        self._new, self._pending = [], deque([value])
        self._elements = self._bytes = 0
        while self._pending:
            at = len(self.reads), len(self.contents), len(self.kept)
            try:
                self._value(self._pending.popleft())
            except _Large:
                self._back(at)
                if not last:
                    self._back(before)
                    for key in self._new:
                        del self._seen[key]
                    return False
            except BaseException as error:  # of an object that does not let itself be looked at
                pass_signal(error)
                self._back(at)
        return True

    def _back(self, to: tuple[int, int, int]) -> None:
        del self.reads[to[0] :], self.contents[to[1] :], self.kept[to[2] :]

    def _push(self, values: Iterable[object]) -> None:
        self._pending.extend([value for value in values if type(value) not in _ATOMS])

    def _count(self, elements: int, size: int = 0) -> None:
        self._elements += elements
        self._bytes += size
        if not self._whole and (self._elements > LARGE_ELEMENTS or self._bytes > LARGE_BYTES):
            self._elements -= elements
            self._bytes -= size
            raise _Large

    # -- one value

    def _value(self, value: object) -> None:
        if type(value) in _ATOMS or id(value) in self._seen:
            return
        self._seen[id(value)] = value
        self._new.append(id(value))
        if isinstance(value, FunctionType):
            if is_local(value.__module__):
                self._to_function(value)
        elif isinstance(value, type):
            self._class(value)
        elif isinstance(value, ModuleType):
            self._held.module(value)
        elif not self._callable(value):
            self._data(value)

    def _callable(self, value: object) -> bool:
        """Look at what calls other code, or shows other data; False if it is something else."""
        if isinstance(value, MethodType):
            self._push((value.__func__, value.__self__))
        elif isinstance(value, (BuiltinFunctionType, MethodWrapperType)):
            if not isinstance(value.__self__, ModuleType):
                self._push((value.__self__,))
        elif isinstance(value, (partial, partialmethod)):
            self._push((value.func, value.args, value.keywords))
        elif isinstance(value, (staticmethod, classmethod)):
            self._push((value.__func__,))
        elif isinstance(value, property):
            self._push((value.fget, value.fset, value.fdel))
        elif isinstance(value, cached_property):
            self._push((value.func,))
        elif isinstance(value, singledispatchmethod):
            self._push((value.dispatcher, value.func))
        elif isinstance(value, _VIEWS):
            self._push(reads.behind(value))
        elif isinstance(value, memoryview):
            self._push((value.obj,))
        elif not is_local(type(value).__module__) and isinstance(getattr(value, "__wrapped__", None), FunctionType):
            self._wrapper(value)
        else:
            return False
        return True

    def _wrapper(self, value: Any) -> None:
        self._functions_in(value)
        function: FunctionType = value.__wrapped__
        self._push((function,))
        if isinstance(value, CachedFunction) and is_local(function.__module__):
            self._caches[id(value)] = value  # type: ignore[assignment]  # such caches are called

    def _data(self, value: Any) -> None:
        cls = type(value)
        if own := is_local(cls.__module__):
            self._push((cls,))
        if isinstance(value, _FIXED):
            if own:
                self._attributes(value, reads.of_attributes)
            return
        if reads.is_array(value):
            self._array(value)
        elif not self._container(value):
            if not reads.is_simple(cls):
                self._opaque(value)
                return
            self._attributes(value, reads.of_object)
            return
        if getattr(value, "__dict__", None) or cls.__module__ != "builtins":
            self._attributes(value, reads.of_object)

    def _attributes(self, value: object, read: Read) -> None:
        self._watch(read, value)
        self._push(read(value)[1:])

    def _class(self, cls: type) -> None:
        if not is_local(cls.__module__):
            return
        self._code[id(cls)] = cls
        self.reads.append((reads.of_class, cls, reads.of_class(cls)))
        hidden = issubclass(cls, Enum)  # maps of members, which Enum keeps for itself
        self._push(
            value
            for name, value in vars(cls).items()
            if name not in CLASS_NOISE and not (hidden and name[0] == name[-1] == "_" and name[1] != "_")
        )
        if hidden:
            self._push(cls.__members__.values())  # type: ignore[attr-defined]  # Enums have them
        self._push((*cls.__bases__, type(cls)))

    def _container(self, value: Any) -> bool:
        """Look at what a container holds; False if it is none."""
        large = isinstance(value, Sized) and len(value) > self._measure.elements
        step = -(-len(value) // self._measure.samples) if large else 1
        if isinstance(value, (tuple, frozenset)):
            held = [one for one in value if type(one) not in _ATOMS]
            if len(held) > self._measure.elements:
                held = held[::step]
            self._count(len(held))
            self._push(held)
        elif isinstance(value, dict):
            if large:
                self._sampled(reads.at_keys(list(value)[::step]), value)
            else:
                self._watch(reads.of_dict, value, len(value))
                self._push(reads.of_dict(value))
            if isinstance(value, defaultdict):
                self._attributes_of_factory(value)
        elif isinstance(value, set) and large:
            self._size(value)
        elif isinstance(value, list) and large:
            self._sampled(reads.every(step), value)
        elif isinstance(value, deque) and large:
            self._sampled(reads.at_places(range(0, len(value), step)), value)
        elif isinstance(value, (list, set, deque)):
            self._watch(tuple, value)
            self._push(value)
        else:
            return False
        return True

    def _attributes_of_factory(self, value: defaultdict[object, object]) -> None:
        self.reads.append((reads.of_factory, value, reads.of_factory(value)))
        self._push((value.default_factory,))

    def _sampled(self, read: Read, value: Any) -> None:
        held = tuple(read(value))
        self._count(len(held))
        self._size(value)
        self.reads.append((read, value, held))
        self._push(held)

    def _array(self, value: Any) -> None:
        if getattr(value.dtype, "hasobject", False):
            self._opaque(value)
        elif value.nbytes > self._measure.bytes:
            self._count(self._measure.samples)
            self._content(reads.sample_of_array(self._measure.samples), value)
        else:
            self._count(0, value.nbytes)
            self._content(reads.of_array, value)

    def _opaque(self, value: Any) -> None:
        """Look at an object by its pickle; what has none (locks, handles) is known by identity alone."""
        if is_of_process(value):
            return
        limit = None if self._whole else self._measure.bytes
        found: list[object] = []
        try:
            data = reads.pickled(limit, found)(value)
        except reads.TooLarge:
            self._large_object(value)
            return
        except BaseException as error:
            pass_signal(error)
            self._functions_in(value)
            return
        self._count(0, len(data))
        self.contents.append((reads.pickled(limit), value, data))
        self.kept.append(found)
        self._push(found)

    def _large_object(self, value: object) -> None:
        """Look at the size of an object, at samples of its bytes if it has such, and at its attributes."""
        self._content(sys.getsizeof, value)
        try:
            self._content(reads.sample_of_bytes(self._measure.samples), value)
        except (TypeError, ValueError, BufferError):
            pass
        if getattr(value, "__dict__", None) or is_local(type(value).__module__):
            self._attributes(value, reads.of_object)

    def _functions_in(self, value: object) -> None:
        """Look at functions and classes among the attributes of an object of which nothing else is looked at."""
        state = getattr(value, "__dict__", None) or {}
        names = [name for name, one in state.items() if isinstance(one, _CODE)]
        if names:
            self._watch(reads.named_attributes(names), value)
            self._push(state[name] for name in names)

    # -- how

    def _watch(self, read: Read, source: Any, elements: int | None = None) -> None:
        then = tuple(read(source))
        self._count(len(then) if elements is None else elements)
        self.reads.append((read, source, then))

    def _size(self, value: Sized) -> None:
        self.contents.append((len, value, len(value)))

    def _content(self, content: Content, source: Any) -> None:
        self.contents.append((content, source, content(source)))


def _is_unset(cell: CellType) -> bool:
    try:
        cell.cell_contents  # noqa: B018  (it raises)
    except ValueError:
        return True
    return False
