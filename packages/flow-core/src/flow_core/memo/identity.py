"""The identity of a function: a structural digest of its own code and of what of the user's own code and data it names.

It covers bytecode, names and constants (also of nested functions), closure, defaults, and, as far as they are the
user's own, the helper functions, classes and plain data among the globals that the code names. It knows nothing of
lines, files, annotations, comments or the docstring, and does not change with the hash seed. Code of the standard
library and of installed packages is known by name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from enum import Enum
from types import BuiltinFunctionType, FunctionType, ModuleType

from flow_core.guard import pass_signal
from flow_core.interfaces.snapshot import Identity, Part
from flow_core.memo.arguments import defaults_of
from flow_core.memo.digest import CannotDigest, Walker, digest, frame, name_of
from flow_core.memo.facts import ABSENT, Facts, facts_of, is_local, is_of_process, members
from flow_core.remote.contents import CLASS_NOISE


class FunctionWalker(Walker):
    """A walk in which Python functions are known by what they do.

    Attributes:
        sources: Digests of the sources of functions met and of the data they name, in order of meeting; None once a
            source was missing.
    """

    def __init__(self) -> None:
        super().__init__()
        self.sources: list[bytes] | None = []

    def function(self, function: FunctionType) -> bytes:
        """Return the bytes that stand for a function: of an installed one its name, of the user's own what it does."""
        if not is_local(function.__module__):
            return super().function(function)
        return frame(b"F", b"".join(joined(part) for part in self.function_parts(function)))

    def function_parts(self, function: FunctionType, *, defaults: bool = True) -> Iterator[Part]:
        """Yield the code of a function and what it names, each under its name."""
        facts = facts_of(function.__code__)
        if self.sources is not None:
            self.sources = None if facts.source is None else [*self.sources, facts.source]
        yield Part("code", facts.digest)
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
            return frame(b"?", name_of(type(value)))

    def _named(self, value: object) -> bytes:
        if isinstance(value, type):
            return self._class(value)
        wraps = isinstance(getattr(value, "__wrapped__", None), FunctionType)
        if wraps or isinstance(value, (FunctionType, BuiltinFunctionType, ModuleType)):
            return self.encode(value)
        if is_of_process(value):
            return frame(b"?", name_of(type(value)))
        return self._if_possible(value)

    def _if_possible(self, value: object) -> bytes:
        try:
            return self._data(value)
        except CannotDigest:
            return frame(b"?", name_of(type(value)))

    def _data(self, value: object) -> bytes:
        """Encode data, and let it count for the sources unless functions in it have counted by themselves."""
        before = self.sources
        encoded = self.encode(value)
        if before is not None and self.sources is before:
            self.sources = [*before, digest(encoded)]
        return encoded

    def _class(self, cls: type) -> bytes:
        if not is_local(cls.__module__) or issubclass(cls, Enum):
            members = list(cls.__members__.items()) if issubclass(cls, Enum) else []
            return frame(b"c", name_of(cls) + b"".join(name.encode() + self.named(m.value) for name, m in members))
        key = id(cls)
        if key in self._stack:
            return frame(b"c", name_of(cls))
        self._stack[key] = len(self._stack)
        try:
            parts = [name_of(cls), *(self._class(base) for base in cls.__bases__)]
            for name, value in sorted(vars(cls).items()):
                if name not in CLASS_NOISE:
                    parts.append(frame(b":", name.encode() + b"\0" + self._member(value)))
        finally:
            del self._stack[key]
        return frame(b"C", b"".join(parts))

    def _member(self, value: object) -> bytes:
        if isinstance(value, (staticmethod, classmethod)):
            return self.named(value.__func__)
        if isinstance(value, property):
            return self.encode(tuple(each for each in (value.fget, value.fset, value.fdel) if each is not None))
        return self.named(value)


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
    else:
        parts = (Part("code", walker.encode(function)),)
    sources = walker.sources
    defaults = tuple((name, _default(value)) for name, value in defaults_of(function))
    return Identity(parts, digest(b"".join(sources)) if sources else None, defaults)


def _default(value: object) -> bytes | CannotDigest:
    try:
        return FunctionWalker().encode(value)
    except CannotDigest as error:
        return error
