"""The identity of a function: a structural digest of its own code and of what of the user's own code and data it names.

It covers bytecode, names and constants (also of nested functions), closure, defaults, and, as far as they are the
user's own, the helper functions, classes and plain data among the globals that the code names. It knows nothing of
lines, files, annotations, comments or the docstring, and does not change with the hash seed. Code of the standard
library and of installed packages is known by name.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from enum import Enum
from functools import WRAPPER_ASSIGNMENTS, cached_property
from types import BuiltinFunctionType, FunctionType, ModuleType

from flow_core.guard import pass_signal
from flow_core.interfaces.snapshot import Identity, Part
from flow_core.memo.arguments import defaults_of
from flow_core.memo.digest import CannotDigest, Walker, digest, frame, name_of
from flow_core.memo.facts import ABSENT, Facts, facts_of, is_local, is_of_process, members
from flow_core.memo.held import HeldModules
from flow_core.remote.contents import CLASS_NOISE

_DEEP = 30
"""So many values within one another are walked at once; each takes some ten frames of Python's stack."""
_ENUM_NOISE = frozenset(
    {
        *("_member_names_", "_member_map_", "_value2member_map_"),
        *("_unhashable_values_", "_unhashable_values_map_", "_hashable_values_"),
    }
)
_OF_WRAPPED = frozenset({*WRAPPER_ASSIGNMENTS, "__wrapped__"})
_OF_MEMBER = frozenset({"_value_", "_name_", "__objclass__", "_sort_order_", "_inverted_"})


class FunctionWalker(Walker):
    """A walk in which Python functions are known by what they do.

    Attributes:
        sources: Digests of the sources of functions met and of the data they name, in order of meeting; None once a
            source was missing.
    """

    def __init__(self, attributes: Iterable[str] = ()) -> None:
        """Begin; ``attributes`` are those that code outside of this walk takes of modules."""
        super().__init__()
        self.sources: list[bytes] | None = []
        self._code: dict[int, tuple[object, bytes]] = {}
        self._kinds: dict[type, bytes] = {}
        self._held = HeldModules(attributes)
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
        if len(self._stack) > _DEEP:
            self._later.append((code, tag, parts))
            return frame(b"~", name_of(code))
        encoded = frame(tag, b"".join(parts()))
        self._code[id(code)] = code, encoded
        return encoded

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
        while self._later or (held := [each for each in self._held.left() if each.value is not ABSENT]):
            if self._later:
                found.append(self._once(*self._later.popleft()))
            else:
                found.extend(frame(b":", each.path.encode() + b"\0" + self.named(each.value)) for each in held)
        return frame(b"~", b"".join(found)) if found else b""

    def kind(self, value: object) -> bytes:
        """Return the bytes that stand for the type of a value: of the user's own what it does."""
        cls = type(value)
        known = self._kinds.get(cls)
        if known is not None:
            return known
        found = frame(b"k", digest(self.encode(cls))) if is_own(cls) else name_of(cls)
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
            yield Part(f"closure {name!r}", self.named(content))
        for name in facts.names:
            if name in function.__globals__:
                yield Part(f"global {name!r}", self.named(function.__globals__[name]))
        for name, value in sorted(vars(function).items()):
            if name != "__wrapped__":
                yield Part(f"attribute {name!r}", self.named(value))
        yield from self._module_attributes(function, facts)

    def _module_attributes(self, function: FunctionType, facts: Facts) -> Iterator[Part]:
        seen: set[str] = set()
        for member in members(function, facts):
            if member.value is not ABSENT and member.path not in seen:
                seen.add(member.path)
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
                yield frame(b":", name.encode() + b"\0" + self._member(value))

    def _members(self, cls: type) -> Iterator[bytes]:
        """Yield the members of an Enum, with what its methods have set of them."""
        if not issubclass(cls, Enum):
            return
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


def identify(function: Callable[..., object]) -> Identity:
    """Return the identity of an app's function; its defaults are apart, since they count as arguments. Any thread.

    Raises:
        CannotDigest: it is no function, and its state cannot be digested.
    """
    walker = FunctionWalker()
    if isinstance(function, FunctionType):
        parts = tuple(walker.function_parts(function, defaults=False))
        for _, value in defaults_of(function):
            if isinstance(value, ModuleType):
                walker.module(value)
    else:
        parts = (Part("code", walker.encode(function)),)
    if rest := walker.rest():
        parts = (*parts, Part("what else it reaches", rest))
    sources = walker.sources
    defaults = tuple((name, _default(value, walker.taken())) for name, value in defaults_of(function))
    return Identity(parts, digest(b"".join(sources)) if sources else None, defaults)


def encoded(value: object, attributes: Iterable[str] = ()) -> bytes:
    """Return the bytes that stand for an argument, with the user's own code that is in it. Raises CannotDigest.

    Of modules in it the given attributes count.
    """
    walker = FunctionWalker(attributes)
    return walker.encode(value) + walker.rest()


def _default(value: object, attributes: Iterable[str]) -> bytes | CannotDigest:
    try:
        return encoded(value, attributes)
    except CannotDigest as error:
        return error
