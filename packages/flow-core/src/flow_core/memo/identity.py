"""The identity of a function: a structural digest of its own code and of what of the user's own code and data it names.

It covers bytecode, names and constants (also of nested functions), closure, defaults, and, as far as they are the
user's own, the helper functions, classes and plain data among the globals that the code names. It knows nothing of
lines, files, annotations, comments or the docstring, and does not change with the hash seed. Code of the standard
library and of installed packages is known by name.
"""

from __future__ import annotations

import dis
import inspect
import os
import sys
import sysconfig
import textwrap
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, is_dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from functools import lru_cache, partial
from pathlib import PurePath
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType

from flow_core.files import File
from flow_core.memo.digest import CannotDigest, Walker, digest, frame, name_of

_LOADED_AT = time.time()
_PYTHON = frame(b"V", f"{sys.implementation.name} {sys.version_info[0]}.{sys.version_info[1]}".encode())
_HAS_DOCSTRING = 0x4000000
_FACTS_MAX = 8192
_LOADS = ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS")
_OUR_OWN = frozenset(
    {"flow", "flow_core", "flow_executors", "flow_providers", "flow_staging", "flow_monitor", "flow_viz"}
)
_PLAIN = (
    *(type(None), bool, int, float, complex, str, bytes, bytearray, tuple, list, dict, set, frozenset),
    *(PurePath, File, Enum, date, datetime, timedelta, Decimal, Fraction, partial),
)
_CLASS_NOISE = frozenset(
    {
        *("__dict__", "__weakref__", "__doc__", "__module__", "__qualname__", "__annotations__"),
        *("__firstlineno__", "__static_attributes__", "__dataclass_params__", "__dataclass_fields__"),
        *("__abstractmethods__", "_abc_impl", "__parameters__", "__orig_bases__", "__annotate__"),
    }
)


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a key: its name for people, and the bytes that stand for it."""

    name: str
    encoded: bytes


@dataclass(frozen=True, slots=True)
class Identity:
    """What a function is.

    Attributes:
        parts: The code, then each thing it names.
        source: Digest of the sources of the user's functions and the data they name, for another Python minor version;
            None where a source is not at hand.
    """

    parts: tuple[Part, ...]
    source: bytes | None


@dataclass(frozen=True, slots=True)
class _Facts:
    """What a code object says for itself: its digest, the globals it names, their attributes that it names."""

    code: CodeType
    digest: bytes
    names: tuple[str, ...]
    attributes: tuple[tuple[str, str], ...]
    source: bytes | None


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
        facts = _facts(function.__code__)
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
            yield Part(f"closure {name!r}", self.named(content, any_data=True))
        for name in facts.names:
            if name in function.__globals__:
                yield Part(f"global {name!r}", self.named(function.__globals__[name]))
        yield from self._module_attributes(function, facts)

    def _module_attributes(self, function: FunctionType, facts: _Facts) -> Iterator[Part]:
        for name, attribute in facts.attributes:
            module = function.__globals__.get(name)
            if isinstance(module, ModuleType) and is_local(module.__name__) and hasattr(module, attribute):
                yield Part(f"global '{name}.{attribute}'", self.named(getattr(module, attribute)))

    def named(self, value: object, *, any_data: bool = False) -> bytes:
        """Return the bytes that stand for something that a function names.

        Plain data counts by its value, with ``any_data`` every other object too; what cannot be digested, by its type.
        """
        if isinstance(value, type):
            return self._class(value)
        wraps = isinstance(getattr(value, "__wrapped__", None), FunctionType)
        if wraps or isinstance(value, (FunctionType, BuiltinFunctionType, ModuleType)):
            return self.encode(value)
        if any_data or isinstance(value, _PLAIN) or is_dataclass(value) or hasattr(value, "__array_interface__"):
            return self._if_possible(value)
        return frame(b"?", name_of(type(value)))

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
                if name not in _CLASS_NOISE:
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
    """Return the identity of an app's function, without its defaults, which count as arguments. Any thread.

    Raises:
        CannotDigest: it is no function, and its state cannot be digested.
    """
    walker = FunctionWalker()
    if isinstance(function, FunctionType):
        parts = tuple(walker.function_parts(function, defaults=False))
    else:
        parts = (Part("code", walker.encode(function)),)
    sources = walker.sources
    return Identity(parts, digest(b"".join(sources)) if sources else None)


@lru_cache(maxsize=1024)
def is_local(module: str | None) -> bool:
    """Tell whether a module is the user's own: neither of Flow, nor of the standard library, nor installed."""
    if module is None or module == "__main__":
        return True
    top = module.partition(".")[0]
    if top in _OUR_OWN or top in sys.stdlib_module_names:
        return False
    path = getattr(sys.modules.get(module), "__file__", None)
    return path is None or not os.path.realpath(path).startswith(_installed_prefixes())


@lru_cache(maxsize=1)
def _installed_prefixes() -> tuple[str, ...]:
    paths = sysconfig.get_paths()
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    return tuple(os.path.join(os.path.realpath(paths[name]), "") for name in names if paths.get(name))


_known: dict[int, _Facts] = {}


def _facts(code: CodeType) -> _Facts:
    """Return the facts of a code object; kept, since a script calls few functions many times."""
    facts = _known.get(id(code))
    if facts is None:
        facts = _look_at(code)
        if len(_known) >= _FACTS_MAX:
            _known.clear()
        _known[id(code)] = facts
    return facts


def _look_at(code: CodeType) -> _Facts:
    names: set[str] = set()
    attributes: set[tuple[str, str]] = set()
    first_constant_used = False
    last: str | None = None
    for instruction in dis.get_instructions(code):
        name = instruction.argval if isinstance(instruction.argval, str) else ""
        if instruction.opname in _LOADS:
            names.add(name)
        elif last is not None and instruction.opname in ("LOAD_ATTR", "LOAD_METHOD"):
            attributes.add((last, name))
        last = name if instruction.opname in _LOADS else None
        if instruction.opcode in dis.hasconst and instruction.arg == 0:
            first_constant_used = True
    inner = [_facts(constant) for constant in code.co_consts if isinstance(constant, CodeType)]
    for facts in inner:
        names.update(facts.names)
        attributes.update(facts.attributes)
    return _Facts(
        code,
        _code_digest(code, skip_docstring=not first_constant_used and _has_docstring(code)),
        tuple(sorted(names)),
        tuple(sorted(attributes)),
        _source_digest(code),
    )


def _has_docstring(code: CodeType) -> bool:
    if sys.version_info >= (3, 14):
        return bool(code.co_flags & _HAS_DOCSTRING)
    is_function = code.co_flags & inspect.CO_OPTIMIZED and not code.co_name.startswith("<")
    return bool(is_function and code.co_consts and isinstance(code.co_consts[0], str))


def _code_digest(code: CodeType, *, skip_docstring: bool) -> bytes:
    walker = Walker()
    constants = [
        _facts(constant).digest if isinstance(constant, CodeType) else walker.encode(constant)
        for constant in code.co_consts
    ]
    if skip_docstring:
        constants[0] = b"docstring"
    shape = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags)
    names = (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
    parts = (code.co_code, getattr(code, "co_exceptiontable", b""), shape, names, tuple(constants))
    return digest(_PYTHON + walker.encode(parts))


def _source_digest(code: CodeType) -> bytes | None:
    """Return the digest of a function's source; None where it is not at hand or was edited since it was loaded."""
    try:
        if os.path.exists(code.co_filename) and os.stat(code.co_filename).st_mtime > _LOADED_AT:
            return None
        lines = textwrap.dedent(inspect.getsource(code)).splitlines()
    except (OSError, TypeError, IndexError, SyntaxError):
        return None
    return digest("\n".join(line.rstrip() for line in lines if line.strip()).encode("utf-8", "surrogatepass"))
