"""Digests of code and of data, the same in the script and on a node: whether a module here is what it is there."""

from __future__ import annotations

import struct
from functools import partial
from hashlib import blake2b
from types import CodeType, FunctionType, MethodType, ModuleType

from flow_core.remote import pickling_attributes

CLASS_NOISE = frozenset(
    {
        *("__dict__", "__weakref__", "__doc__", "__module__", "__qualname__"),
        *("__annotations__", "__annotate__", "__annotate_func__", "__annotations_cache__"),
        *("__firstlineno__", "__static_attributes__", "__dataclass_params__", "__dataclass_fields__"),
        *("__abstractmethods__", "_abc_impl", "_abc_registry", "_abc_cache", "_abc_negative_cache"),
        *("_abc_negative_cache_version", "__slotnames__", "__parameters__", "__orig_bases__", "__type_params__"),
        *("__protocol_attrs__", "__non_callable_proto_members__", "__callable_proto_members_only__"),
    }
)
"""Attributes of classes that Python itself sets, some of them when a class is first used: no part of what one is."""
_SIZE = 16  # bytes of a digest, as in all blobs: enough for no two contents to have the same by chance
_NESTED = 50  # levels; deeper data counts by its pickle, so that Python's stack is never the limit


def digest_of(data: bytes) -> bytes:
    """Return the 16-byte digest of some bytes."""
    return blake2b(data, digest_size=_SIZE).digest()


def meaning(value: object) -> bytes:
    """Return a digest of what a function or class does: its code, that of what it closes over, and its defaults.

    Lines and files do not count, nor what it names: that is looked at by itself. Other objects count by their names.
    """
    return _meaning(value, [])


def _meaning(value: object, above: list[int]) -> bytes:
    # Functions may enclose themselves, and classes have methods that name them.
    if id(value) in above:
        return b"^"
    above = [*above, id(value)]
    if isinstance(value, FunctionType):
        cells = [_cell(cell, above) for cell in value.__closure__ or ()]
        defaults = [_held(one, above) for one in (*(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values())]
        return _joined(b"f", _code(value.__code__), *cells, b"/", *defaults)
    if isinstance(value, type):
        bases = [_named(base) for base in value.__bases__]
        own = sorted((name, one) for name, one in vars(value).items() if name not in CLASS_NOISE)
        # By name, so that the order of definition does not count.
        members = [_joined(name.encode(), _member(one, above)) for name, one in own]
        values = [contents(one.value) for one in getattr(value, "__members__", {}).values()]  # of an Enum
        return _joined(b"c", *bases, *members, *values)
    if isinstance(value, (staticmethod, classmethod, MethodType)):
        return _joined(b"m", _meaning(value.__func__, above))
    if isinstance(value, property):
        return _joined(b"p", *(_meaning(one, above) for one in (value.fget, value.fset, value.fdel)))
    if isinstance(value, partial):
        return _joined(b"P", _meaning(value.func, above), *(_held(one, above) for one in value.args))
    wrapped = getattr(value, "__wrapped__", None)
    if isinstance(wrapped, FunctionType):
        return _joined(b"w", _named(type(value)), _meaning(wrapped, above))
    return _named(value)


def _member(value: object, above: list[int]) -> bytes:
    """Return what stands for an attribute of a class; data counts by itself elsewhere."""
    code = (FunctionType, staticmethod, classmethod, property)
    return _meaning(value, above) if isinstance(value, code) or hasattr(value, "__wrapped__") else b""


def _cell(cell: object, above: list[int]) -> bytes:
    try:
        return _held(cell.cell_contents, above)  # type: ignore[attr-defined]  # a cell, by where it comes from
    except ValueError:
        return b"unset"


def _held(value: object, above: list[int]) -> bytes:
    return _meaning(value, above) if callable(value) else contents(value)


def _named(value: object) -> bytes:
    if value is None:
        return b"N"
    if isinstance(value, ModuleType):
        return _joined(b"M", value.__name__.encode())
    owner = value if hasattr(value, "__qualname__") else type(value)
    return f"{getattr(owner, '__module__', '')}:{getattr(owner, '__qualname__', '')}".encode()


def _code(code: CodeType) -> bytes:
    shape = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags)
    names = (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
    constants = [_code(one) if isinstance(one, CodeType) else contents(one) for one in code.co_consts]
    table = getattr(code, "co_exceptiontable", b"")
    return _joined(code.co_code, table, repr((shape, names)).encode(), *constants)


def contents(value: object) -> bytes:
    """Return a digest of data by structure; sets and dictionaries count without order. Other objects by their pickle.

    What has no pickle counts by its type.
    """
    return _contents(value, 0)


def _contents(value: object, depth: int) -> bytes:
    cls = type(value)
    # ascii() is the same in each locale and holds lone surrogates, which encode() refuses.
    if value is None or cls in (bool, int, complex, str) or value is ...:
        return _joined(cls.__name__.encode(), ascii(value).encode())
    # By its bits, since nan is not equal to itself and -0.0 is equal to 0.0.
    if cls is float:
        return _joined(b"float", struct.pack("<d", value))
    if cls in (bytes, bytearray):
        return _joined(cls.__name__.encode(), bytes(value))  # type: ignore[call-overload]  # bytes, by its type
    if depth < _NESTED and cls in (list, tuple):
        return _joined(cls.__name__.encode(), *(_contents(one, depth + 1) for one in value))  # type: ignore[attr-defined]
    if depth < _NESTED and cls in (set, frozenset):
        return _joined(cls.__name__.encode(), *sorted(_contents(one, depth + 1) for one in value))  # type: ignore[attr-defined]
    if depth < _NESTED and cls is dict:
        pairs = ((_contents(key, depth + 1), _contents(one, depth + 1)) for key, one in value.items())  # type: ignore[attr-defined]
        return _joined(b"dict", *(_joined(*pair) for pair in sorted(pairs)))
    array = getattr(value, "dtype", None), getattr(value, "shape", None), getattr(value, "tobytes", None)
    if None not in array and not getattr(array[0], "hasobject", True):
        own = _contents(getattr(value, "__dict__", None) or None, depth + 1)
        return _joined(b"array", str(array[0]).encode(), repr(array[1]).encode(), array[2](), own)  # type: ignore[misc]
    try:
        return _joined(b"pickle", pickling_attributes.dumps(value))
    except Exception:
        # Locks, handles and the like: each process has its own, so only the kind can be compared.
        return _joined(b"type", _named(cls))


def _joined(*parts: bytes) -> bytes:
    hashed = blake2b(digest_size=_SIZE)
    for part in parts:
        # With its length, so that no two lists of parts run into the same bytes.
        hashed.update(len(part).to_bytes(8, "little"))
        hashed.update(part)
    return hashed.digest()
