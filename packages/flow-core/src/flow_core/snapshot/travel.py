"""A function as it travels, with what it names of the user's own modules; see ``flow_core.remote.modules``."""

from __future__ import annotations

import io
import pickle
import sys
from collections.abc import Callable, Iterable, Iterator
from enum import Enum
from functools import cached_property, lru_cache, partialmethod, singledispatchmethod
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
from flow_core.memo.code_facts import ANY, OF_IMPORT, is_of_process, own_names
from flow_core.memo.identity import identify, joined
from flow_core.remote import by_value
from flow_core.remote.contents import CLASS_NOISE, contents, meaning
from flow_core.remote.functions import (
    BY_VALUE,
    digest_of,
    importable,
    needs_care,
    pack_function,
    pack_with_modules,
)
from flow_core.remote.modules import Packed, Path, at, here
from flow_core.remote.own_modules import is_local
from flow_core.remote.refs import reference

if TYPE_CHECKING:
    from flow_core.snapshot.finder import FunctionLooks

VALUE_BYTES = 64 << 10
"""Most bytes (64 KiB) of a pickled value of a module that travel with a function; of more its digest does."""
_WHOLE_BYTES = 4 << 20  # bytes of all that travels by value for the case that the code on the node is other
_had: set[Path] = set()
"""Data that was found in modules so far, and so may have been set on nodes."""
_CLASS_CODE = (
    *(staticmethod, classmethod, property, cached_property, partialmethod, singledispatchmethod, MethodType),
    *(GetSetDescriptorType, MemberDescriptorType, MethodDescriptorType, WrapperDescriptorType),
)


def packed(function: Callable[..., object], looks: FunctionLooks) -> bytes:
    """Return the blob of a function that was looked at just now.

    Raises:
        SerializationError: it cannot be packed; the message names it and what it holds.
    """
    blob = pack_function(function)
    return _with_modules(blob, (function,), (function,), looks) or blob


def packed_module(module: ModuleType, looks: FunctionLooks) -> bytes:
    """Return the blob of a module of the user's own, of which all was looked at; empty if there is nothing in it.

    Raises:
        Exception: what cloudpickle raises when it cannot be pickled.
    """
    return _with_modules(BY_VALUE + by_value.dumps(module), (module,), (), looks)


def surroundings(looks: FunctionLooks) -> bytes:
    """Return a blob that does nothing but to have modules be what code that was looked at finds in them; may be empty.

    Where their code is other, that is an error there.
    """
    return _with_modules(pack_function(len), (), (), looks)


def _with_modules(
    blob: bytes, whole_of: tuple[object, ...], functions: tuple[Callable[..., object], ...], looks: FunctionLooks
) -> bytes:
    """Return a blob with what its code uses of modules; empty if that is nothing."""
    code, data = _named(functions, looks)
    # Noted, so that a name which the script deletes later is taken away on workers that have it.
    _had.update(path for path in data if "." not in path[1])
    absent = tuple(_absent(looks))
    if not code and not data and not absent:
        return b""
    imported = [path for path in code if path in looks.imported]
    values, large = _sorted_out(data)
    # Large data cannot travel, so there is no whole by value that would do without the node's own module.
    wanted = [] if large or not whole_of else [*whole_of, *(code[path] for path in imported)]
    whole, *members = _whole(wanted, looks) or [b""]
    replaced = tuple(zip(imported, members, strict=False))
    means = tuple((path, meaning(value)) for path, value in code.items())
    fetched = tuple(path for path in (*data, *absent) if path in looks.imported or (path[0], ANY) in looks.imported)
    caches = tuple(_caches(looks, blob))
    return pack_with_modules(
        Packed(here(), blob, whole, replaced, means, tuple(large), tuple(values), caches, fetched, absent)
    )


def _named(functions: Iterable[object], looks: FunctionLooks) -> tuple[dict[Path, object], dict[Path, object]]:
    """Return code and data of the user's own modules that functions use and other processes import."""
    code: dict[Path, object] = {}
    data: dict[Path, object] = {}
    for names, name, value in looks.named:
        module = str(names.get("__name__"))
        # Such as __file__, which is another there; or a constant of Python, which dataclasses name among the builtins.
        if name in OF_IMPORT or value is NotImplemented or value is Ellipsis:
            continue
        # The name of the module may have been given to another one since.
        if (_is_of_file(module) or module == "builtins") and sys.modules[module].__dict__ is names:
            (code if _is_code(value) else data)[module, name] = value
    for found in (*functions, *looks.code):
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


def _absent(looks: FunctionLooks) -> Iterator[Path]:
    """Yield names that code looks for in the user's own modules, and that these had once but have no more."""
    for names, name in looks.absent:
        module = str(names.get("__name__"))
        if name in OF_IMPORT or not _is_of_file(module) or sys.modules[module].__dict__ is not names:
            continue
        if name == ANY:
            yield from sorted(path for path in _had.copy() if path[0] == module and path[1] not in names)
        # A name that was never there is absent on the node as well; only one that its import sets must be taken away.
        elif (module, name) in _had or name in _names_at_import(module):
            yield module, name


@lru_cache(maxsize=1024)
def _names_at_import(module: str) -> frozenset[str]:
    """Return the names in a module's own lines, such as those that it sets: a node has them once it imports it."""
    try:
        code = sys.modules[module].__spec__.loader.get_code(module)  # type: ignore[union-attr]  # or else it raises
        return frozenset(code.co_names)
    except Exception:
        return frozenset()


def _caches(looks: FunctionLooks, blob: bytes) -> Iterator[tuple[Path, bytes]]:
    """Yield functions of modules that remember their results, and names of what they are and name now."""
    for cached in looks.caches:
        module, _, qualname = (reference(cached) or "").partition(":")
        if _is_of_file(module) and "#" not in qualname:
            yield (module, qualname), _version(cached, blob)


def _version(cached: Any, blob: bytes) -> bytes:
    try:
        # What the function is, and not the blob: results stay valid while nothing that it names has changed.
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
        if not needs_care(data) and not own_names.mentioned(data):
            return data
    except Exception:
        pass
    return by_value.dumps(value)


def _whole(functions: list[Any], looks: FunctionLooks) -> list[bytes]:
    """Return blobs in which all of the user's own is by value; an empty one if that cannot be, or is too large."""
    # A module by value has only what is named of it: all of it could hold what cannot be pickled.
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


class _WholePickler(by_value.ByValuePickler):
    """Pickles the user's own functions and classes by value, and of modules what is named."""

    def __init__(self, file: io.BytesIO, members: dict[int, dict[str, Any]]) -> None:
        super().__init__(file)
        self._members = members

    def reducer_override(self, obj: Any) -> Any:
        """Return how an object is made anew."""
        # Before cloudpickle decides, which would send by name what can be imported.
        if isinstance(obj, FunctionType) and _is_of_file(obj.__module__):
            return self._dynamic_function_reduce(obj)
        if isinstance(obj, type) and _is_of_file(obj.__module__):
            return by_value.reduced_class(obj)
        if isinstance(obj, ModuleType) and _is_of_file(obj.__name__):
            return ModuleType, (obj.__name__,), self._members.get(id(obj.__dict__), {})
        return super().reducer_override(obj)
