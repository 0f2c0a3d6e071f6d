"""A function as it travels, with what it names of the user's own modules; see ``flow_core.remote.modules``."""

from __future__ import annotations

import io
import pickle
import sys
from collections.abc import Callable, Iterator
from enum import Enum
from functools import cached_property, partialmethod, singledispatchmethod
from types import (
    BuiltinFunctionType,
    FunctionType,
    GetSetDescriptorType,
    MemberDescriptorType,
    MethodDescriptorType,
    MethodType,
    ModuleType,
    WrapperDescriptorType,
)
from typing import TYPE_CHECKING, Any

from flow_core.guard import pass_signal
from flow_core.memo.facts import is_local, is_of_process
from flow_core.memo.held import OF_IMPORT
from flow_core.memo.identity import identify, joined
from flow_core.remote import by_value
from flow_core.remote.contents import CLASS_NOISE, contents, meaning
from flow_core.remote.functions import (
    BY_VALUE,
    by_value_names,
    digest_of,
    importable,
    pack_function,
    pack_with_modules,
)
from flow_core.remote.modules import Packed, Path, at, here
from flow_core.remote.refs import reference

if TYPE_CHECKING:
    from flow_core.snapshot.looks import Looks

VALUE_BYTES = 64 << 10
"""Most bytes of a pickled value of a module that travel with a function."""
_WHOLE_BYTES = 4 << 20
_CLASS_CODE = (
    *(staticmethod, classmethod, property, cached_property, partialmethod, singledispatchmethod, MethodType),
    *(GetSetDescriptorType, MemberDescriptorType, MethodDescriptorType, WrapperDescriptorType),
)


def packed(function: Callable[..., object], looks: Looks) -> bytes:
    """Return the blob of a function that was looked at just now.

    Raises:
        SerializationError: it cannot be packed; the message names it and what it holds.
    """
    blob = pack_function(function)
    code, data = _named(function, looks)
    if not code and not data:
        return blob
    values, large = _sorted_out(data)
    imported = [path for path in code if path in looks.imported]
    whole, *members = [b""] if large else _whole([function, *(code[path] for path in imported)], looks)
    replaced = tuple(zip(imported, members, strict=False))
    means = tuple((path, meaning(value)) for path, value in code.items())
    fetched = tuple(path for path in data if path in looks.imported)
    caches = tuple(_caches(looks, blob))
    return pack_with_modules(Packed(here(), blob, whole, replaced, means, tuple(large), tuple(values), caches, fetched))


def _named(function: Callable[..., object], looks: Looks) -> tuple[dict[Path, object], dict[Path, object]]:
    """Return code and data of the user's own modules that a function uses and other processes import."""
    code: dict[Path, object] = {}
    data: dict[Path, object] = {}
    for names, name, value in looks.named:
        module = str(names.get("__name__"))
        if name in OF_IMPORT:  # such as __file__, which is another there
            continue
        if _is_of_file(module) and sys.modules[module].__dict__ is names:
            (code if _is_code(value) else data)[module, name] = value
    for found in (function, *looks.code):
        ref = reference(found)
        module, _, qualname = (ref or "").partition(":")
        if ref is None or not _is_of_file(module):
            continue
        qualname, _, wrappers = qualname.partition("#")
        if wrappers:
            code[module, qualname] = at((module, qualname))  # what has the name, such as an app, as a node finds it
            continue
        code[module, qualname] = found
        for path, value in _attributes(found):
            (code if _is_code(value) else data)[module, f"{qualname}.{path}"] = value
    return code, data


def _caches(looks: Looks, blob: bytes) -> Iterator[tuple[Path, bytes]]:
    """Yield functions of modules that remember their results, and names of what they are and name now."""
    for cached in looks.caches:
        module, _, qualname = (reference(cached) or "").partition(":")
        if _is_of_file(module) and "#" not in qualname:
            yield (module, qualname), _version(cached, blob)


def _version(cached: Any, blob: bytes) -> bytes:
    try:
        identity = identify(cached.__wrapped__)
    except BaseException as error:  # of an object that is looked at, or since it has no digest
        pass_signal(error)
        return digest_of(blob)
    defaults = [one if isinstance(one, bytes) else b"?" for _, one in identity.defaults]
    return digest_of(b"".join([*map(joined, identity.parts), *defaults]))


def _is_of_file(module: object) -> bool:
    """Tell whether a module is the user's own and other processes would import it."""
    return isinstance(module, str) and module in sys.modules and is_local(module) and importable(module)


def _is_code(value: object) -> bool:
    if isinstance(value, (type, ModuleType, FunctionType, BuiltinFunctionType)):
        return True
    return isinstance(getattr(value, "__wrapped__", None), FunctionType)


def _attributes(found: object) -> Iterator[tuple[str, object]]:
    """Yield attributes of functions, of members of Enums, and data of classes, by the paths to them."""
    if isinstance(found, FunctionType):
        if is_local(found.__globals__.get("__name__")):  # not wrappers of functools, which keep things there
            yield from ((name, value) for name, value in vars(found).items() if not _is_special(name))
    elif isinstance(found, type) and issubclass(found, Enum):
        for member in found:
            own = [(name, value) for name, value in vars(member).items() if not name.startswith("_")]
            yield from ((f"{member.name}.{name}", value) for name, value in own)
    elif isinstance(found, type):
        yield from ((name, value) for name, value in vars(found).items() if _is_class_data(name, value))


def _is_class_data(name: str, value: object) -> bool:
    if _is_special(name) or name in CLASS_NOISE or isinstance(value, _CLASS_CODE):
        return False
    return not (_is_code(value) or hasattr(value, "__wrapped__") or is_of_process(value))


def _is_special(name: str) -> bool:
    return name.startswith("__") and name.endswith("__")


def _sorted_out(data: dict[Path, object]) -> tuple[list[tuple[Path, bytes]], list[tuple[Path, bytes]]]:
    """Return pickles of values that travel, and digests of those too large; what has no pickle stays where it is."""
    values: list[tuple[Path, bytes]] = []
    large: list[tuple[Path, bytes]] = []
    for path, value in data.items():
        try:
            pickled = _pickled(value)
        except BaseException as error:  # a lock, a handle, a connection: each process has its own
            pass_signal(error)
            continue
        if len(pickled) <= VALUE_BYTES:
            values.append((path, pickled))
        else:
            large.append((path, contents(value)))
    return values, large


def _pickled(value: object) -> bytes:
    try:
        data = pickle.dumps(value, 5)
        if not any(name in data for name in by_value_names()):
            return data
    except Exception:
        pass
    return by_value.dumps(value)


def _whole(functions: list[Any], looks: Looks) -> list[bytes]:
    """Return blobs in which all of the user's own is by value; an empty one if that cannot be, or is too large."""
    members: dict[int, dict[str, Any]] = {}
    for names, name, value in looks.named:
        members.setdefault(id(names), {})[name] = value
    blobs = []
    for function in functions:
        with io.BytesIO() as file:
            try:
                _WholePickler(file, members).dump(function)
            except BaseException as error:
                pass_signal(error)
                return [b""]
            blobs.append(BY_VALUE + file.getvalue())
    return blobs if sum(map(len, blobs)) <= _WHOLE_BYTES else [b""]


class _WholePickler(by_value.Pickler):
    """Pickles the user's own functions and classes by value, and of modules what is named."""

    def __init__(self, file: io.BytesIO, members: dict[int, dict[str, Any]]) -> None:
        super().__init__(file)
        self._members = members

    def reducer_override(self, obj: Any) -> Any:
        """Return how an object is made anew."""
        if isinstance(obj, FunctionType) and _is_of_file(obj.__module__):
            return self._dynamic_function_reduce(obj)
        if isinstance(obj, type) and _is_of_file(obj.__module__):
            return by_value.reduced_class(obj)
        if isinstance(obj, ModuleType) and _is_of_file(obj.__name__):
            return ModuleType, (obj.__name__,), self._members.get(id(obj.__dict__), {})
        return super().reducer_override(obj)
