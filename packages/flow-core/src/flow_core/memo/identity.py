"""The identity of a function: a structural digest of its own code and of what of the user's own code and data it names.

It covers bytecode, names and constants (also of nested functions), closure, defaults, and, as far as they are the
user's own, the helper functions, classes and plain data among the globals that the code names. It knows nothing of
lines, files, annotations, comments or the docstring, and does not change with the hash seed. Code of the standard
library and of installed packages is known by name.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from enum import Enum
from functools import WRAPPER_ASSIGNMENTS, cached_property
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import NamedTuple

from flow_core.files import File
from flow_core.guard import called, pass_signal
from flow_core.interfaces.snapshot import Identity, Part
from flow_core.memo.arguments import defaults_of
from flow_core.memo.code_facts import (
    ABSENT,
    CodeFacts,
    HeldModules,
    facts_of,
    from_builtins,
    is_of_process,
    members,
    takes_main,
)
from flow_core.memo.digest import LEAVES, CannotDigest, Walker, digest, frame, name_of
from flow_core.remote.contents import CLASS_NOISE
from flow_core.remote.own_modules import is_local

_DEEP = 30
"""Levels of values within one another that are walked at once; each takes some ten frames of Python's stack."""
# Maps of members that Enum keeps, by other names in each Python version; the members count by themselves.
_ENUM_NOISE = frozenset(
    {
        *("_member_names_", "_member_map_", "_value2member_map_"),
        *("_unhashable_values_", "_unhashable_values_map_", "_hashable_values_"),
    }
)
# Types whose values may be shown in messages: they are immutable, and their repr() is Python's own.
_TOLD = frozenset({type(None), bool, int, float, complex, str, bytes})
_TOLD_MAX = 1000  # characters; messages show 120 of them
_SHORT = 8  # bytes of a part's digest in a key's list of parts, which explains misses and decides nothing
_OF_WRAPPED = frozenset({*WRAPPER_ASSIGNMENTS, "__wrapped__"})
_OF_MEMBER = frozenset({"_value_", "_name_", "__objclass__", "_sort_order_", "_inverted_"})


class FunctionWalker(Walker):
    """A walk in which Python functions are known by what they do.

    Attributes:
        sources: Digests of the sources of functions met and of the data they name, in order of meeting; None once a
            source was missing.
        about: Details of what was met for messages, as ``Part.about``.
        unknown: Names of functions met that take globals by names which show only as they run.
        mains: Names of functions met that take ``__main__`` as a module.
    """

    def __init__(self, attributes: Iterable[str] = ()) -> None:
        """Begin; ``attributes`` are those that code outside of this walk takes of modules."""
        super().__init__()
        self.sources: list[bytes] | None = []
        self.about: list[tuple[str, object]] = []
        self.unknown: list[str] = []
        self.mains: list[str] = []
        self._code: dict[int, tuple[object, bytes]] = {}
        self._kinds: dict[type, bytes] = {}
        self._held = HeldModules(attributes)
        # Functions and classes met at a depth where Python's stack might end; ``rest`` walks them from the top.
        self._later: deque[tuple[FunctionType | type, bytes, Callable[[], Iterable[bytes]]]] = deque()

    def function(self, function: FunctionType) -> bytes:
        """Return the bytes that stand for a function: of an installed one its name, of the user's own what it does."""
        if not is_local(function.__module__):
            return super().function(function)
        return self._once(function, b"F", lambda: (joined(part) for part in self.function_parts(function)))

    def class_(self, cls: type) -> bytes:
        """Return the bytes that stand for a class: of an installed one its name, of the user's own what it does."""
        if not is_own(cls):
            return frame(b"c", name_of(cls) + b"".join(self._members(cls)))
        return self._once(cls, b"C", lambda: self._class_parts(cls))

    def _once(self, code: FunctionType | type, tag: bytes, parts: Callable[[], Iterable[bytes]]) -> bytes:
        """Walk a function or class that is met for the first time; one that is met deep within others later."""
        known = self._code.get(id(code))
        if known is not None:
            return known[1]
        # A long chain of functions that name each other would end Python's stack; its rest is walked later.
        if len(self._stack) > _DEEP:
            self._later.append((code, tag, parts))
            return frame(b"~", name_of(code))
        encoded = frame(tag, b"".join(parts()))
        self._code[id(code)] = code, encoded
        return encoded

    def with_details(self, parts: Iterable[Part]) -> Iterator[Part]:
        """Yield parts with their details for messages: what was met since the part before."""
        for part in parts:
            about, self.about = self.about, []
            yield replace(part, about=tuple(about)) if about else part

    def taken(self) -> set[str]:
        """Return all attributes that code met so far takes of anything."""
        return self._held.attributes

    def wrapper(self, value: object, wrapped: FunctionType) -> bytes:
        """Return the bytes that stand for what wraps a function; if its class is the user's own, with attributes."""
        found = super().wrapper(value, wrapped)
        if not is_own(type(value)):
            return found
        own = sorted((name, each) for name, each in vars(value).items() if name not in _OF_WRAPPED)
        return found + b"".join(frame(b":", name.encode() + b"\0" + self.named(each)) for name, each in own)

    def rest(self) -> bytes:
        """Return the bytes of code left for later and of modules that code holds, if any; to be asked for last."""
        found: list[bytes] = []
        # What is walked here may hold more modules and meet more code, so it goes on until neither is left.
        while self._later or (held := [each for each in self._held.left() if each.value is not ABSENT]):
            if self._later:
                found.append(self._once(*self._later.popleft()))
            else:
                for each in held:
                    self._tell_of(f"module {each.module.__name__}", each.attribute, each.value)
                    found.append(frame(b":", each.path.encode() + b"\0" + self.named(each.value)))
        return frame(b"~", b"".join(found)) if found else b""

    def kind(self, value: object) -> bytes:
        """Return the bytes that stand for the type of a value: of the user's own what it does."""
        cls = type(value)
        known = self._kinds.get(cls)
        if known is not None:
            return known
        # The digest, and not the bytes: each object of a class would carry all of the class.
        found = frame(b"k", digest(self.encode(cls))) if is_own(cls) else name_of(cls)
        # While the class itself is being encoded this is a reference back, which holds at this depth only.
        if id(cls) not in self._stack:
            self._kinds[cls] = found
        return found

    def module(self, module: ModuleType) -> bytes:
        """Return the bytes that stand for a module in data; what code may take of it counts in ``rest``."""
        self._held.module(module)
        return super().module(module)

    def function_parts(self, function: FunctionType, *, defaults: bool = True) -> Iterator[Part]:
        """Yield the code of a function and what it names, each under its name."""
        facts = facts_of(function.__code__)
        # The app's own function has its defaults elsewhere: they count as arguments that were not given.
        owner = f"helper {function.__qualname__.rpartition('<locals>.')[2]}()" if defaults else ""
        self.about.append((owner, function.__code__))
        if facts.any_global:
            self.unknown.append(called(function))
        if takes_main(function, facts):
            self.mains.append(called(function))
        # One missing source makes the key by source text impossible, since it would leave that function out.
        if self.sources is not None:
            self.sources = None if facts.source is None else [*self.sources, facts.source]
        yield Part("code", facts.digest)
        self._held.code(function, facts)
        if defaults:
            yield Part("defaults", self._if_possible((function.__defaults__, function.__kwdefaults__)))
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=False):
            try:
                content = cell.cell_contents
            except ValueError:
                yield Part(f"closure {name!r}", b"unset")
                continue
            self._tell_of(owner, name, content)
            yield Part(f"closure {name!r}", self.named(content))
        for name in facts.names:
            value = function.__globals__.get(name, ABSENT)
            # What the script has put among the builtins is found by plain names, too.
            if value is not ABSENT or (value := from_builtins(name)) is not ABSENT:
                self._tell_of(owner, name, value)
                yield Part(f"global {name!r}", self.named(value))
        # __wrapped__ is met through the wrapper; here it would count twice.
        for name, value in sorted(vars(function).items()):
            if name != "__wrapped__":
                yield Part(f"attribute {name!r}", self.named(value))
        yield from self._module_attributes(function, facts, owner)

    def _tell_of(self, owner: str, name: str, value: object) -> None:
        """Note a value that is immutable and short, for messages; ``owner`` is what names it, empty for the app."""
        if type(value) in _TOLD and not (isinstance(value, (str, bytes)) and len(value) > _TOLD_MAX):
            self.about.append((f"{name} of {owner}" if owner else "", value))

    def _module_attributes(self, function: FunctionType, facts: CodeFacts, owner: str) -> Iterator[Part]:
        seen: set[str] = set()
        for member in members(function, facts):
            if member.value is not ABSENT and member.path not in seen:
                seen.add(member.path)
                self._tell_of(owner, member.path, member.value)
                yield Part(f"global {member.path!r}", self.named(member.value))

    def named(self, value: object) -> bytes:
        """Return the bytes that stand for something that a function names.

        Data counts by its value; by its type what each process has its own of (locks, handles, loggers), and what does
        not let itself be looked at.
        """
        try:
            return self._named(value)
        except CannotDigest:
            raise
        except BaseException as error:
            pass_signal(error)
            return frame(b"?", self._kind_if_possible(value))

    def _named(self, value: object) -> bytes:
        if isinstance(value, ModuleType):  # its attributes count where they are taken
            return super().module(value)
        wraps = isinstance(getattr(value, "__wrapped__", None), FunctionType)
        if wraps or isinstance(value, (type, FunctionType, BuiltinFunctionType)):
            return self.encode(value)
        if is_of_process(value):
            return frame(b"?", self._kind_if_possible(value))
        return self._if_possible(value)

    def _if_possible(self, value: object) -> bytes:
        try:
            return self._data(value)
        except CannotDigest:
            return frame(b"?", self._kind_if_possible(value))

    def _kind_if_possible(self, value: object) -> bytes:
        try:
            return self.kind(value)
        except CannotDigest:
            return name_of(type(value))

    def _data(self, value: object) -> bytes:
        """Encode data, and let it count for the sources."""
        encoded = self.encode(value)
        if self.sources is not None:
            self.sources = [*self.sources, digest(encoded)]
        return encoded

    def _class_parts(self, cls: type) -> Iterator[bytes]:
        yield name_of(cls)
        if is_own(type(cls)):
            yield frame(b"M", self.encode(type(cls)))
        for base in cls.__bases__:
            yield self.encode(base)
        yield from self._members(cls)
        members = getattr(cls, "__members__", {}) if issubclass(cls, Enum) else {}
        for name, value in sorted(vars(cls).items()):
            if name not in CLASS_NOISE and name not in members and (not members or name not in _ENUM_NOISE):
                self._tell_of(f"class {cls.__qualname__}", name, value)
                yield frame(b":", name.encode() + b"\0" + self._member(value))

    def _members(self, cls: type) -> Iterator[bytes]:
        """Yield the members of an Enum, with what its methods have set of them."""
        if not issubclass(cls, Enum):
            return
        # In the order of definition, which is what iteration over the class gives to its users.
        for name, member in cls.__members__.items():
            yield name.encode() + self.named(member.value)
            if is_own(cls) and (own := {key: value for key, value in vars(member).items() if key not in _OF_MEMBER}):
                yield self.named(own)

    def _member(self, value: object) -> bytes:
        if isinstance(value, (staticmethod, classmethod)):
            return self.named(value.__func__)
        if isinstance(value, property):
            own = (each for each in (value.fget, value.fset, value.fdel) if each is not None)
            return frame(b"t", b"".join(self.named(each) for each in own))
        if isinstance(value, cached_property):  # it holds a lock in older Pythons
            return frame(b"q", self.named(value.func))
        if isinstance(value, ModuleType):
            return self.module(value)
        return self.named(value)


def is_own(cls: type) -> bool:
    """Tell whether a class is the user's own."""
    module = cls.__module__
    return is_local(module if isinstance(module, str) else None)


def joined(part: Part) -> bytes:
    """Return a part as bytes that cannot run into the next part's."""
    return frame(b":", frame(b"x", part.name.encode()) + frame(b"b", part.encoded))


def shown(parts: Iterable[Part]) -> tuple[tuple[str, bytes], ...]:
    """Return parts as a key shows them: by name and short digest."""
    return tuple([(part.name, digest(part.encoded)[:_SHORT]) for part in parts])


def identify(function: Callable[..., object]) -> Identity:
    """Return the identity of an app's function; its defaults are apart, since they count as arguments. Any thread.

    Raises:
        CannotDigest: it is no function, and its state cannot be digested.
    """
    walker = FunctionWalker()
    if isinstance(function, FunctionType):
        parts = tuple(walker.with_details(walker.function_parts(function, defaults=False)))
        # A module as a default counts by what code takes of it, so it must be known before ``rest`` is asked.
        for _, value in defaults_of(function):
            if isinstance(value, ModuleType):
                walker.module(value)
    else:
        parts = tuple(walker.with_details(Part("code", walker.encode(each)) for each in (function,)))
    if rest := walker.rest():
        parts = (*parts, *walker.with_details([Part("what else it reaches", rest)]))
    sources = walker.sources
    taken = frozenset(walker.taken())
    files = [("", file) for file in walker.files]
    defaults = []
    for name, value in defaults_of(function):
        findings = ValueFindings([], walker.unknown)
        defaults.append((name, _default(value, taken, findings)))
        files += [(name, file) for file in findings.files]
    source = digest(b"".join(sources)) if sources else None
    whole = b"".join(map(joined, parts))
    unknown = tuple(dict.fromkeys(walker.unknown))
    mains = tuple(dict.fromkeys(walker.mains))
    return Identity(parts, source, tuple(defaults), taken, tuple(files), whole, shown(parts), unknown, mains)


class ValueFindings(NamedTuple):
    """Files known by their names, and functions, that were met in values beside what stands for these.

    Those take globals by names which show only as they run.
    """

    files: list[File]
    unknown: list[str]


def encoded(name: str, value: object, attributes: Iterable[str], findings: ValueFindings) -> Part:
    """Return an argument as a part of that name, with the user's own code that is in it. Raises CannotDigest.

    Of modules in it the given attributes count. What else is to be known of it is added to ``findings``.
    """
    leaf = LEAVES.get(type(value))
    if leaf is not None:
        return Part(name, leaf(value))
    # A walk of its own: what an argument is must not depend on what other arguments were met before.
    walker = FunctionWalker(attributes)
    found = walker.encode(value) + walker.rest()
    findings.files.extend(walker.files)
    findings.unknown.extend(walker.unknown)
    return Part(name, found, tuple(walker.about))


def _default(value: object, attributes: Iterable[str], findings: ValueFindings) -> bytes | CannotDigest:
    try:
        return encoded("", value, attributes, findings).encoded
    except CannotDigest as error:
        return error
