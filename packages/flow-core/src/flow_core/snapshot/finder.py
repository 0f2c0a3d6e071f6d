"""Looks that tell whether a function is as it was: at everything it names, reached through the user's own code.

What cannot change is compared by identity alone, so a look costs some tens of nanoseconds a name. Of what can change in
place the contents are looked at: the elements of containers by identity, of arrays the bytes, of other objects their
pickle. Of containers, arrays and pickles that are large only samples are looked at, unless all is asked for.

A finder goes function by function and value by value.
"""

from __future__ import annotations

import builtins
import sys
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Sized
from datetime import date, datetime, time, timedelta, tzinfo
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from functools import cached_property, lru_cache, partial, partialmethod, singledispatchmethod
from operator import is_
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

from flow_core.files import FILE_TYPES, File
from flow_core.guard import called, pass_signal
from flow_core.memo.code_facts import (
    ABSENT,
    HeldModules,
    ModuleMember,
    facts_of,
    from_builtins,
    is_of_process,
    members,
    takes_main,
)
from flow_core.remote.caches import CachedFunction
from flow_core.remote.contents import CLASS_NOISE
from flow_core.remote.own_modules import is_local
from flow_core.snapshot import reads
from flow_core.snapshot.reads import LARGE_BYTES, Content, Read

LARGE_ELEMENTS = 10_000
"""A value that holds more elements, at all depths, is large: a look at all of it in each call would cost too much."""
SAMPLE = 256
"""Number of elements of a large container, or bytes of a large array, that are looked at."""

_ATOMS: frozenset[type] = frozenset(
    {
        *(type(None), bool, int, float, complex, str, bytes, range, slice, type(...), type(NotImplemented), CodeType),
        *(WrapperDescriptorType, MethodDescriptorType, ClassMethodDescriptorType, GetSetDescriptorType),
        *(MemberDescriptorType, GenericAlias, *FILE_TYPES, date, datetime, time, timedelta, Decimal, Fraction, Pattern),
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
    """Limits above which a container or array is large, and the number of samples that are looked at then."""

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


class IdentityChecks:
    """Comparisons by identity, made into one function: at some 20 ns each nothing else is as fast.

    Functions of the same form share their code, so a value that changes often costs no compilation.
    """

    def __init__(self) -> None:
        self._given: list[object] = []
        # Values become variables of the generated function, each once, so that equal tests share their code.
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

    def attributes(self, function: FunctionType) -> None:
        """Have a function's own attributes be the same objects."""
        names = function.__dict__
        if not names:
            self._tests.append(f"not {self._of(function)}.__dict__")
            return
        # The dict itself, how many names it has, and what each means: together nothing of it can change unseen.
        self.attribute(function, "__dict__")
        self._tests.append(f"len({self._of(names)}) == {len(names)}")
        for name, value in names.items():
            self.name(names, name, value)

    def made(self, rest: Callable[[], bool] | None) -> Callable[[], bool]:
        """Return the function. A name or a variable that is gone, or whatever an object raises, is a change."""
        tests = [*self._tests, f"{self._of(rest)}()"] if rest is not None else self._tests
        text = " and ".join(tests) or "True"
        given = ", ".join(f"v{number}" for number in range(len(self._given)))
        # The text holds variables and no values, so functions of one form are compiled once.
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


class Finder:
    """Finds what must be compared to know that a function, and all that it names, is as it was. One thread, used once.

    Attributes:
        named: What functions name of the global names of modules, each once.
        absent: What they look for there, without finding it.
        imported: Modules and attributes of them that functions use by imports of their own.
        checks: Comparisons by identity.
        reads: What is read and compared by identity.
        contents: What is read and compared by equality.
        kept: Objects that are known by their ids, to be kept.
        modules: Modules that were met, by their ids.
        unknown: Names of functions that take globals by names which show only as they run.
        mains: Names of functions that take ``__main__`` as a module.
    """

    def __init__(self, whole: bool, attributes: Iterable[str] = ()) -> None:
        self.named: list[Name] = []
        self.absent: list[tuple[dict[str, Any], str]] = []
        self.imported: set[tuple[str, str]] = set()
        self.checks = IdentityChecks()
        self.reads: list[tuple[Read, object, tuple[object, ...]]] = []
        self.contents: list[tuple[Content, object, object]] = []
        self.kept: list[object] = []
        self.modules: dict[int, ModuleType] = {}
        self.unknown: dict[str, None] = {}
        self.mains: dict[str, None] = {}
        self._whole = whole
        self._code: dict[int, Callable[..., object]] = {}
        self._caches: dict[int, Callable[..., object]] = {}
        self._held = HeldModules(attributes)
        self._names: set[tuple[int, str]] = set()
        # These dicts hold the objects, so that their ids stay their own while the search goes on.
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
        # Modules that code holds come last: which attributes count of them is known only when all code was met.
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
        # A dict that can change in place, while the tuple of other defaults cannot.
        if function.__kwdefaults__:
            given: dict[Any, Any] = function.__kwdefaults__
            self.reads.append((reads.of_dict, given, reads.of_dict(given)))
        for cell in function.__closure__ or ():
            self._cell(cell)
        facts, names = facts_of(function.__code__), function.__globals__
        self._held.code(function, facts)
        if facts.any_global:
            self.unknown[called(function)] = None
        if takes_main(function, facts):
            self.mains[called(function)] = None
        for name in facts.names:
            value = names.get(name, ABSENT)
            self._global(names, name, value)
            # A name that the module lacks is looked for among the builtins, as the interpreter does.
            if value is ABSENT and ((value := from_builtins(name)) is not ABSENT or name not in vars(builtins)):
                self._global(vars(builtins), name, value)
        for member in members(function, facts):
            self._member(member)

    def _member(self, member: ModuleMember) -> None:
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
            # A variable that is set later is a change, too.
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
            self.absent.append((names, name))
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
            self.modules[id(value)] = value  # type: ignore[assignment]  # a module, by its type
            return
        # All of it first; only if that is too much, samples, ever fewer, until it is not.
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
                    # What was met in this attempt is to be met again in the next one.
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
        # Atoms are left out here: they are most of what containers hold.
        self._pending.extend([value for value in values if type(value) not in _ATOMS])

    def _count(self, elements: int, size: int = 0) -> None:
        self._elements += elements
        self._bytes += size
        if not self._whole and (self._elements > LARGE_ELEMENTS or self._bytes > LARGE_BYTES):
            # Taken back, since the walk goes on with what else the value holds.
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
            # Installed functions count by their names, so nothing in them is looked at.
            if is_local(value.__module__):
                self._to_function(value)
        elif isinstance(value, type):
            self._class(value)
        elif isinstance(value, ModuleType):
            self.modules[id(value)] = value
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
            self._attributes(value, reads.of_attributes)
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
        # Wrappers of the library (functools), before they are taken for data: what counts is the function in them.
        elif not is_local(type(value).__module__) and isinstance(getattr(value, "__wrapped__", None), FunctionType):
            self._wrapper(value)
        else:
            return False
        return True

    def _wrapper(self, value: Any) -> None:
        self._functions_in(value)
        function: FunctionType = value.__wrapped__
        self._push((function,))
        # Workers must forget what such functions remember of other versions.
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
        # Rounded up, so that never more than that many samples are taken.
        large = isinstance(value, Sized) and len(value) > self._measure.elements
        step = -(-len(value) // self._measure.samples) if large else 1
        if isinstance(value, (tuple, frozenset)):
            # Tuples cannot change themselves, so only what can change in them counts towards the measure.
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
        # A set cannot be sampled: its order may change with each addition. Its size is looked at.
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
        # The bytes of such arrays are addresses.
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
        # Loggers, runs and futures change with the run itself and mean the same.
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
        # Where a pickle would be too long this is all that can be told at little cost.
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


class FunctionLooks:
    """Everything to be looked at, and what it was. Any thread.

    Attributes:
        unchanged: Tells whether all is as it was.
        named: What functions name of the global names of modules, each once.
        absent: What they look for there, without finding it.
        code: The user's own functions and classes that were met.
        caches: Functions of the user's own that remember their results (functools).
        imported: Modules and attributes of them that functions use by imports of their own.
        modules: Modules that were met.
        unknown: Names of functions that take globals by names which show only as they run.
        mains: Names of functions that take ``__main__`` as a module.
    """

    __slots__ = ("absent", "caches", "code", "imported", "mains", "modules", "named", "unchanged", "unknown")

    def __init__(self, function: Callable[..., object], whole: bool, attributes: Iterable[str] = ()) -> None:
        """Look for the first time; with ``whole`` at all of large values too.

        ``attributes`` count of modules that are held as values, besides those that code takes.
        """
        found = Finder(whole, attributes)
        found.begin(function)
        self.named: tuple[Name, ...] = tuple(found.named)
        self.absent = tuple(found.absent)
        self.code = found.code
        self.caches = found.caches
        self.imported = found.imported
        self.modules = tuple(found.modules.values())
        self.unknown, self.mains = tuple(found.unknown), tuple(found.mains)
        # Identity first and contents after it: comparisons by identity take nanoseconds and find most changes.
        rest = _MutableLooks(found).unchanged if found.reads or found.contents else None
        self.unchanged: Callable[[], bool] = found.checks.made(rest)


class _MutableLooks:
    """Comparisons of what can change in place. Any thread."""

    __slots__ = ("_contents", "_kept", "_reads")

    def __init__(self, found: Finder) -> None:
        self._reads = found.reads
        self._contents = found.contents
        self._kept = found.kept

    def unchanged(self) -> bool:
        """Tell whether all is as it was. May raise, if it is not."""
        for read, source, then in self._reads:
            now = read(source)
            # map() with is_ runs in C, without a step of Python for each element.
            if len(now) != len(then) or not all(map(is_, now, then)):
                return False
        for content, source, was in self._contents:  # noqa: SIM110  (all() makes an object on the way of each call)
            if content(source) != was:
                return False
        return True
