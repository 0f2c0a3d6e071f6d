"""Functions as bytes, and back: by reference where they can be imported, else by value.

``R`` and a reference (``flow_core.remote.refs``) as UTF-8, or ``P`` and a pickle of the function by value; or, of one
that uses modules of the user's own, ``M`` and a pickle of ``flow_core.remote.modules.Packed``.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable, Iterable
from hashlib import blake2b
from importlib.machinery import BuiltinImporter, FrozenImporter, PathFinder
from types import ModuleType

from flow_core.errors import DeserializationError, SerializationError
from flow_core.guard import called, one_line, pass_signal
from flow_core.remote.refs import reference, resolve

TYPE_CHECKING = False
if TYPE_CHECKING:
    from flow_core.remote.modules import Packed, Surroundings

REFERENCE = b"R"
BY_VALUE = b"P"
WITH_MODULES = b"M"
_CLASSES = b"flow_core.remote.classes"  # stands in every pickle that has a class by value
_DIGEST_SIZE = 16
_CHECKED_MAX = 64
_CHECKED_BYTES = 64 << 10


def digest_of(blob: bytes) -> bytes:
    """Return the name of a blob."""
    return blake2b(blob, digest_size=_DIGEST_SIZE).digest()


def load_function(blob: bytes) -> tuple[Callable[..., object], Surroundings | None]:
    """Return the function of a blob, and what is to be prepared before each call, if anything.

    Raises:
        DeserializationError: it cannot be unpickled here; the cause is chained. Or it needs code or data of modules
            that differ here from the script's and cannot travel.
        ImportError, AttributeError: its module is not here, or is another version.
    """
    if blob[:1] != WITH_MODULES and _CLASSES not in blob:
        return _load(blob), None
    known = _checked.get(blob)
    if known is not None:
        return known
    from flow_core.remote.classes import collected
    from flow_core.remote.modules import NOTHING, load_packed

    with collected() as classes:
        if blob[:1] == WITH_MODULES:
            func, surroundings = load_packed(pickle.loads(memoryview(blob)[1:]), _load)
        else:
            func, surroundings = _load(blob), NOTHING
    loaded = func, surroundings.with_classes(classes)
    is_checked = surroundings is not NOTHING and not surroundings.replaced and reference(func) is not None
    if is_checked and not classes and len(blob) <= _CHECKED_BYTES:
        if len(_checked) >= _CHECKED_MAX:
            _checked.clear()
        _checked[blob] = loaded  # a function of a module, and it is the script's: no need to compare them for each task
    return loaded


_checked: dict[bytes, tuple[Callable[..., object], Surroundings]] = {}


def pack_with_modules(packed: Packed) -> bytes:
    """Return the blob of a function that comes with what it names of modules."""
    return WITH_MODULES + pickle.dumps(packed, 5)


def _load(blob: bytes) -> Callable[..., object]:
    if blob[:1] == REFERENCE:
        return resolve(str(blob[1:], "utf-8"))
    try:
        func: Callable[..., object] = pickle.loads(memoryview(blob)[1:])
    except BaseException as error:
        raise DeserializationError(
            f"the function of the task could not be unpickled on this machine ({one_line(error)}): "
            "are the packages that it needs installed here?"
        ) from error
    return func


def pack_function(func: Callable[..., object]) -> bytes:
    """Return a function's blob.

    Raises:
        SerializationError: it cannot be packed; the message names it and what it holds.
    """
    ref = reference(func)
    if ref is not None and importable(ref.partition(":")[0]):
        return REFERENCE + ref.encode()
    from flow_core.remote import by_value

    try:
        return BY_VALUE + by_value.dumps(func)
    except BaseException as error:
        pass_signal(error)
        from flow_core.remote.culprits import explained

        raise SerializationError(
            f"the function {called(func)} cannot be sent to workers, since it, or something that it refers to, cannot "
            f"be pickled: {explained(func, error)}. Make such a thing in the function, or pass what it is made of as "
            "an argument"
        ) from error


_importable: dict[str, bool] = {"__main__": False, "__mp_main__": False}
_unimportable_names: list[bytes] = [b"__main__", b"__mp_main__"]


def by_value_names() -> list[bytes]:
    """Return names of modules that no other process can import: what refers to them must travel by value."""
    return _unimportable_names


def importable(module_name: str) -> bool:
    """Whether another process with the same path would find the module.

    Modules that are loaded but lie on no path (loaded by a test runner, made by hand) are registered to be pickled by
    value from then on.
    """
    known = _importable.get(module_name)
    if known is None:
        known = _importable[module_name] = _findable(module_name)
        module = sys.modules.get(module_name)
        if not known and isinstance(module, ModuleType):
            import cloudpickle

            cloudpickle.register_pickle_by_value(module)
            _unimportable_names.append(module_name.encode())
    return known


def _findable(module_name: str) -> bool:
    path: Iterable[str] | None = None
    parts = module_name.split(".")
    spec = None
    for depth in range(1, len(parts) + 1):
        name = ".".join(parts[:depth])
        if depth == 1 and (BuiltinImporter.find_spec(name) or FrozenImporter.find_spec(name)):
            spec = None
            path = getattr(sys.modules.get(name), "__path__", None)
            if depth == len(parts) or path is None:
                return True
            continue
        try:
            spec = PathFinder.find_spec(name, None if path is None else list(path))
        except (ImportError, ValueError):
            return False
        if spec is None:
            return False
        path = spec.submodule_search_locations
        if path is None and depth < len(parts):
            return False
    origin = getattr(sys.modules.get(module_name), "__file__", None)
    return spec is None or origin is None or spec.origin is None or _same_file(spec.origin, origin)


def _same_file(one: str, other: str) -> bool:
    from os.path import realpath

    return realpath(one) == realpath(other)
