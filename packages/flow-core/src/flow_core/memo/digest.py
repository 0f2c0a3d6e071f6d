"""Digests of values by structure: what makes two arguments the same.

Every value becomes a self-delimiting string of bytes: a tag, a length, a payload; long payloads become their digest.
Nothing is concatenated without its length, so that no two values run into one. The order of dictionaries and sets does
not matter; ``1``, ``1.0``, ``True``, ``'1'`` and ``b'1'`` are five values. Unknown types are walked through what their
``__reduce_ex__`` gives: pickle's own view of them, but by structure.
"""

from __future__ import annotations

import copyreg
import struct
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import partial
from hashlib import blake2b
from pathlib import PurePath
from types import BuiltinFunctionType, FunctionType, MappingProxyType, MethodType, ModuleType
from typing import Any, cast

from flow_core.files import File
from flow_core.memo.registry import registered
from flow_core.remote import reductions
from flow_core.remote.pickling_attributes import left_out

_INLINE = 1024  # bytes; longer payloads become their digest, so that what stands for a large value stays small
# In place of a length: no inline payload is that long.
_HASHED = b"\xff\xff\xff\xff"
_SHARED_MIN = 64  # bytes; what is shorter is encoded again sooner than remembered
_PROTOCOL = 4  # of __reduce_ex__; part of each key, so it must not change with Python's default
_KIND = b"k"  # tag of a type that counts by a digest (the user's own); others count by their names
_VIEWS: tuple[type, ...] = (type({}.keys()), type({}.values()), type({}.items()))


class CannotDigest(Exception):
    """A value cannot be part of a key.

    Attributes:
        path: Where in the argument it is, as steps like ``[3]`` or ``.lock``, outermost first.
        reason: Why.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.path: list[str] = []

    def within(self, step: str) -> CannotDigest:
        """Put a step in front of the path and return the exception itself."""
        self.path.insert(0, step)
        return self


def digest(data: bytes) -> bytes:
    """Return the 16-byte digest of some bytes."""
    return blake2b(data, digest_size=16).digest()


def frame(tag: bytes, payload: bytes) -> bytes:
    """Return tag, length and payload; of a payload over 1 KiB its digest."""
    size = len(payload)
    if size > _INLINE:
        return tag + _HASHED + size.to_bytes(8, "little") + digest(payload)
    return tag + size.to_bytes(4, "little") + payload


def name_of(cls: type | Callable[..., object]) -> bytes:
    """Return ``module:qualname`` of a class or function, framed."""
    module = getattr(cls, "__module__", None) or ""
    qualname = getattr(cls, "__qualname__", None) or repr(cls)
    return frame(b"@", f"{module}:{qualname}".encode())


class Walker:
    """One walk over values; not for several threads. Functions are known by name here (see ``identity``).

    Attributes:
        files: The Files met so far that are known by their names.
    """

    def __init__(self) -> None:
        self.files: list[File] = []
        # Ids of the values that are being encoded, with their depths; _low is the lowest depth that a reference back
        # reached.
        self._stack: dict[int, int] = {}
        self._low = 0
        self._done: dict[int, bytes] = {}
        # Keeps what _done knows by its id alive, since a new object could get the id of one that is gone.
        self._kept: list[object] = []

    def encode(self, value: object) -> bytes:
        """Return the bytes that stand for a value.

        Raises:
            CannotDigest: the value, or something in it, has no stable identity.
        """
        leaf = LEAVES.get(type(value))
        if leaf is not None:
            return leaf(value)
        return self._shared(value)

    def function(self, function: FunctionType) -> bytes:
        """Return the bytes that stand for a Python function."""
        return frame(b"F", name_of(function))

    def class_(self, cls: type) -> bytes:
        """Return the bytes that stand for a class."""
        return frame(b"c", name_of(cls))

    def module(self, module: ModuleType) -> bytes:
        """Return the bytes that stand for a module."""
        return frame(b"m", module.__name__.encode())

    def kind(self, value: object) -> bytes:
        """Return the bytes that stand for the type of a value: its name, or after ``k`` a digest of it."""
        return name_of(type(value))

    def wrapper(self, value: object, wrapped: FunctionType) -> bytes:
        """Return the bytes that stand for what wraps a function."""
        return self.kind(value) + self.encode(wrapped)

    # -- values that contain others

    def _shared(self, value: object) -> bytes:
        """Encode a value that may contain itself, or be met again and again."""
        key = id(value)
        known = self._done.get(key)
        if known is not None:
            return known
        depth = len(self._stack)
        level = self._stack.get(key)
        if level is not None:
            self._low = min(self._low, level)
            # A reference back counts by the number of levels, which is the same wherever the whole value lies.
            return frame(b"^", (depth - level).to_bytes(4, "little"))
        self._stack[key] = depth
        outer, self._low = self._low, depth
        try:
            encoded = self._compound(value)
        except RecursionError:
            raise CannotDigest("it is nested too deeply") from None
        except RuntimeError as error:
            # "dictionary changed size during iteration": another thread writes to it.
            raise CannotDigest(f"it changed while it was looked at ({error})") from error
        finally:
            del self._stack[key]
            # What refers to something above itself has other bytes from another place, so only whole values may be
            # remembered.
            whole = self._low >= depth
            self._low = outer if whole else min(outer, self._low)
        if whole and (len(encoded) >= _SHARED_MIN or encoded[1:5] == _HASHED):
            self._done[key] = encoded
            self._kept.append(value)
        return encoded

    def _compound(self, value: object) -> bytes:
        cls = type(value)
        if cls is list:
            return self._sequence(b"l", value)  # type: ignore[arg-type]  # a list, by its type
        if cls is tuple:
            return self._sequence(b"t", value)  # type: ignore[arg-type]  # a tuple, by its type
        if cls is dict:
            return self._mapping(b"d", value.items())  # type: ignore[attr-defined]  # a dict, by its type
        if cls is set or cls is frozenset:
            return frame(b"s" if cls is set else b"z", self._unordered(value))  # type: ignore[arg-type]  # a set
        return self._other(value)

    def _sequence(self, tag: bytes, values: Iterable[object]) -> bytes:
        parts: list[bytes] = []
        try:
            for value in values:  # no generator, no call of encode: frames are what limits the depth of nesting
                leaf = LEAVES.get(type(value))
                parts.append(leaf(value) if leaf is not None else self._shared(value))
        except CannotDigest as error:
            raise error.within(f"[{len(parts)}]") from error.__cause__
        return frame(tag, b"".join(parts))

    def _mapping(self, tag: bytes, items: Iterable[tuple[object, object]]) -> bytes:
        pairs: list[bytes] = []
        for key, value in items:
            try:
                pairs.append(frame(b":", self.encode(key) + self.encode(value)))
            except CannotDigest as error:
                raise error.within(f"[{key!r}]") from error.__cause__
        # Pairs are sorted as bytes: keys need not be comparable, and the order of insertion does not count.
        pairs.sort()
        return frame(tag, b"".join(pairs))

    def _unordered(self, values: Iterable[object]) -> bytes:
        found = list(values)
        if not all(type(value) in LEAVES for value in found):
            found.sort(key=_rough)  # code counts where it is met first, which must not depend on the hash seed
        return b"".join(sorted([self.encode(value) for value in found]))

    # -- everything else

    def _other(self, value: object) -> bytes:
        # What the user registered goes before all else, also for subclasses of types that are known here.
        stands_for = registered(value)
        if stands_for is not None:
            return frame(b"r", self.kind(value) + self.encode(stands_for[0]))
        # The order of these questions matters: is_dataclass() is true of classes, too, and an Enum may have a dataclass
        # among its bases.
        if isinstance(value, type):
            return self.class_(value)
        if isinstance(value, FunctionType):
            return self.function(value)
        wrapped = getattr(value, "__wrapped__", None)
        if isinstance(wrapped, FunctionType):
            return frame(b"W", self.wrapper(value, wrapped))
        if isinstance(value, Enum):
            return frame(b"e", self.kind(value) + value.name.encode())
        if isinstance(value, File):
            self.files.append(value)
            digest = frame(b"=", value.digest.encode()) if value.digest else b""
            kind = b"" if value.kind == "file" else frame(b"=", value.kind.encode())
            return frame(b"u", self._own(value) + digest + kind + value.url.encode("utf-8", "surrogateescape"))
        if isinstance(value, PurePath):
            return frame(b"p", self._own(value) + str(value).encode("utf-8", "surrogateescape"))
        if isinstance(value, (MethodType, BuiltinFunctionType, partial, ModuleType)):
            return self._callable(value)
        if is_dataclass(value):
            return self._dataclass(value)
        return self._array(value) or self._container_subclass(value) or self._reduced(value)

    def _own(self, value: object) -> bytes:
        """Encode what an object of a class of the user's own is more than one of the class above; else nothing."""
        kind = self.kind(value)
        return kind + self._attributes(value) if kind[:1] == _KIND else b""

    def _attributes(self, value: object, but: Collection[str] = ()) -> bytes:
        """Encode attributes that are set of a value, if there are any."""
        found = {name: each for name, each in (getattr(value, "__dict__", None) or {}).items() if name not in but}
        return self._state(found) if found else b""

    def _callable(self, value: MethodType | BuiltinFunctionType | partial[object] | ModuleType) -> bytes:
        if isinstance(value, ModuleType):
            return self.module(value)
        if isinstance(value, partial):
            attributes = self._own(value) or self._attributes(value)
            return frame(b"P", attributes + self.encode((value.func, value.args, value.keywords)))
        # A function in C is bound to its module; one bound to an object is a method, and the object counts.
        owner = value.__self__
        if isinstance(owner, ModuleType) or owner is None:
            return frame(b"B", name_of(value))
        function = value.__func__ if isinstance(value, MethodType) else value.__qualname__
        return frame(b"M", self.encode(function) + self.encode(owner))

    def _dataclass(self, value: object) -> bytes:
        parts = [self.kind(value)]
        for field in fields(value):  # type: ignore[arg-type]  # an instance, since classes were dealt with before
            try:
                parts.append(frame(b":", field.name.encode() + b"\0" + self.encode(getattr(value, field.name, None))))
            except CannotDigest as error:
                raise error.within(f".{field.name}") from error.__cause__
        return frame(b"D", b"".join(parts) + self._attributes(value, {field.name for field in fields(value)}))  # type: ignore[arg-type]

    def _array(self, value: object) -> bytes | None:
        """Encode arrays and scalars of numpy, and what looks like them, without importing numpy."""
        dtype, shape = getattr(value, "dtype", None), getattr(value, "shape", None)
        to_bytes, to_list = getattr(value, "tobytes", None), getattr(value, "tolist", None)
        if dtype is None or not isinstance(shape, tuple) or to_bytes is None or to_list is None:
            return None
        data = to_list() if getattr(dtype, "hasobject", False) else to_bytes()  # a masked array sets attributes by that
        # descr tells the byte order and the fields of a structured type.
        head = (
            self.kind(value)
            + self._attributes(value)
            + self.encode(shape)
            + self.encode(str(getattr(dtype, "descr", dtype)))
        )
        if getattr(dtype, "hasobject", False):
            return frame(b"a", head + self.encode(data))
        return frame(b"A", head + frame(b"b", data))

    def _container_subclass(self, value: object) -> bytes | None:
        """Encode what pickle would give an order that it does not have, or the other way round."""
        # Equality of OrderedDicts depends on the order, that of sets does not; pickle gives an order to both.
        if isinstance(value, OrderedDict):
            pairs = self.encode(list(value.items()))
            return frame(b"o", self.kind(value) + self._attributes(value) + pairs)
        if isinstance(value, (set, frozenset)):
            state = getattr(value, "__dict__", None) or None
            return frame(b"S", self.kind(value) + self.encode(state) + self._unordered(value))
        if isinstance(value, MappingProxyType):
            return self._mapping(b"h", value.items())
        if isinstance(value, _VIEWS):
            return frame(b"w", self.kind(value) + self._mapping(b"d", cast("Any", value).mapping.items()))
        if isinstance(value, memoryview):
            return frame(b"v", self.encode((value.format, value.shape)) + frame(b"b", value.tobytes()))
        return None

    def _reduced(self, value: object) -> bytes:
        reduced = self._reduce(value)
        if isinstance(reduced, str):
            return frame(b"g", self.kind(value) + reduced.encode())
        maker, arguments, state, items, pairs = (*reduced, None, None, None)[:5]
        if type(state) is dict and not state:
            state = None  # which of the two it is depends on whether anybody has asked for its attributes before
        kind = self.kind(value)
        if kind[:1] == _KIND and isinstance(arguments, tuple) and arguments[:1] == (type(value),):
            arguments = arguments[1:]  # the class, which counts already
        parts = [kind, self.encode(maker), self._part(arguments), self._state(state)]
        if items is not None:
            parts.append(self._sequence(b"l", cast("Iterable[object]", items)))
        if pairs is not None:
            parts.append(self._mapping(b"d", cast("Iterable[tuple[object, object]]", pairs)))
        if (lacking := left_out(value, reduced)) is not None:
            parts.append(self._state(lacking))
        return frame(b"R", b"".join(parts))

    def _reduce(self, value: object) -> str | tuple[object, ...]:
        found: str | tuple[object, ...] | None = reductions.known(value)
        if found is not None:
            return found
        try:
            special = copyreg.dispatch_table.get(type(value))
            reduced: str | tuple[object, ...] = special(value) if special else value.__reduce_ex__(_PROTOCOL)
        except RecursionError:
            raise
        except Exception as error:
            raise CannotDigest(str(error)) from error
        if special is None:
            reductions.record(value, reduced)
        return reduced

    def _part(self, arguments: object) -> bytes:
        try:
            return self.encode(arguments)
        except CannotDigest as error:
            if error.path:
                # The tuple of arguments is pickle's and not the user's, so its index would mislead.
                error.path.pop(0)
            raise

    def _state(self, state: object) -> bytes:
        """Encode the state of an object; attributes show as ``.name`` in errors."""
        if type(state) is not dict:
            return self.encode(state)
        pairs: list[bytes] = []
        for key, value in state.items():
            try:
                pairs.append(frame(b":", self.encode(key) + self.encode(value)))
            except CannotDigest as error:
                raise error.within(f".{key}") from error.__cause__
        return frame(b"d", b"".join(sorted(pairs)))


def _rough(value: object) -> bytes:
    return name_of(value if isinstance(value, (type, FunctionType)) else type(value))


def _int(value: int) -> bytes:
    # One bit more than bit_length for the sign.
    return frame(b"i", value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True))


def _float(value: float) -> bytes:
    # Only nan differs from itself; all its bit patterns count as one. 0.0 and -0.0 stay two values.
    return frame(b"f", struct.pack("<d", value) if value == value else b"nan")


LEAVES: dict[type, Callable[..., bytes]] = {
    type(None): lambda value: b"N\0\0\0\0",
    bool: lambda value: b"T\0\0\0\0" if value else b"U\0\0\0\0",
    int: _int,
    float: _float,
    complex: lambda value: frame(b"j", _float(value.real) + _float(value.imag)),
    str: lambda value: frame(b"x", value.encode("utf-8", "surrogatepass")),
    bytes: lambda value: frame(b"b", value),
    bytearray: lambda value: frame(b"y", bytes(value)),
    type(...): lambda value: b"E\0\0\0\0",
}
"""Of values that hold no others, by their exact type."""
