"""Functions as bytes, and back: by reference where they can be imported, else by value.

``R`` and a reference (``flow_core.remote.refs``) as UTF-8, or ``P`` and a pickle of the function by value; or, of one
that uses modules of the user's own, ``M`` and a pickle of ``flow_core.remote.modules.Packed``. Before any of them, for
nodes that may not see the script's files, ``F`` and the digest of a list of them (``flow_core.remote.script_modules``).
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable, Iterable
from hashlib import blake2b
from importlib.machinery import BuiltinImporter, FrozenImporter, PathFinder
from os import uname
from types import ModuleType

from flow_core.errors import DeserializationError, SerializationError
from flow_core.guard import called, one_line, pass_signal
from flow_core.remote.pickling_attributes import met
from flow_core.remote.refs import reference, resolve

TYPE_CHECKING = False
if TYPE_CHECKING:
    from flow_core.remote.modules import Packed, Surroundings

REFERENCE = b"R"
BY_VALUE = b"P"
WITH_MODULES = b"M"
WITH_LISTED = b"F"
_CLASSES = b"flow_core.remote.classes"  # stands in every pickle that has a class by value
_DIGEST_SIZE = 16  # bytes; names of blobs must never be equal by chance, since the wrong code would run
_CHECKED_MAX = 64  # functions that are known to be the script's; a worker runs few of them in turn
_CHECKED_BYTES = 64 << 10  # bytes of one such blob, so that all of them take 4 MiB at most


def digest_of(blob: bytes) -> bytes:
    """Return the 16-byte digest by which a blob is known, sent and asked for."""
    return blake2b(blob, digest_size=_DIGEST_SIZE).digest()


def load_function(blob: bytes, of_argument: bool = False) -> tuple[Callable[..., object], Surroundings | None]:
    """Return the function of a blob, and what is to be prepared before each call, if anything.

    Args:
        blob: The blob.
        of_argument: Whether it is of an argument: classes of the version that is here are left alone then.

    Raises:
        DeserializationError: it cannot be unpickled here; the cause is chained. Or it needs code or data of modules
            that differ here from the script's and cannot travel.
        ImportError, AttributeError: its module is not here, or is another version.
    """
    if blob[:1] == WITH_LISTED:
        from flow_core.remote.script_modules import install

        install(blob[1 : 1 + _DIGEST_SIZE])
        blob = blob[1 + _DIGEST_SIZE :]
    # Nothing is to be prepared before its calls: the common case, which the bytes show.
    if blob[:1] != WITH_MODULES and _CLASSES not in blob:
        return _load(blob), None
    known = _checked.get(blob)
    if known is not None:
        return known
    from flow_core.remote.classes import collected
    from flow_core.remote.modules import NOTHING, load_packed

    with collected(of_argument) as classes:
        if blob[:1] == WITH_MODULES:
            func, surroundings = load_packed(pickle.loads(memoryview(blob)[1:]), _load)
        else:
            func, surroundings = _load(blob), NOTHING
    loaded = func, surroundings.with_classes(classes)
    # Replaced code and classes by value are put in their places for each call, so these must be looked at each time.
    is_checked = surroundings is not NOTHING and not surroundings.replaced and reference(func) is not None
    if is_checked and not classes and len(blob) <= _CHECKED_BYTES:
        if len(_checked) >= _CHECKED_MAX:
            _checked.clear()
        _checked[blob] = loaded  # a function of a module, and it is the script's: no need to compare them for each task
    return loaded


_checked: dict[bytes, tuple[Callable[..., object], Surroundings]] = {}


def pack_with_listed(blob: bytes, listed: bytes) -> bytes:
    """Return a function's blob after the digest of a list of the script's own files."""
    return WITH_LISTED + listed + blob


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
            f"the function of the task could not be unpickled on node {uname().nodename} ({one_line(error)}): "
            "are the packages that it needs installed there, and is Flow there of the same release?"
        ) from error
    return func


def pack_function(func: Callable[..., object]) -> bytes:
    """Return a function's blob.

    Raises:
        SerializationError: it cannot be packed; the message names it and what it holds.
    """
    ref = reference(func)
    # A name is much shorter than a function's pickle, and the worker takes the code of its own file.
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


_NEVER = {"__main__": False, "__mp_main__": False}
# Answers are kept: a search along the path asks the file system, and each call of an app needs one.
_importable: dict[str, bool] = {**_NEVER}
_searched: list[str] = []
"""The path by which they were looked for."""
_ARRAY = b"_reconstruct"  # what makes arrays anew, but for plain ones
_ALWAYS = (b"__main__", b"__mp_main__")
_unimportable_names: tuple[bytes, ...] = _ALWAYS


def by_value_names() -> tuple[bytes, ...]:
    """Return names of modules that no other process can import: what refers to them must travel by value.

    The same object while these are the same.
    """
    return _unimportable_names


def needs_care(data: bytes) -> bool:
    """Tell whether pickle alone does not do for a value, by its pickle.

    It refers to what no other process can import, or has objects of which pickle may leave out attributes
    (``flow_core.remote.pickling_attributes``). Then ``flow_core.remote.by_value`` does.
    """
    if _registered is None or len(_registered) != _registered_seen:
        _look_at_registered()
    for name in _unimportable_names:
        if name in data:
            return True
    for name in met:
        if name in data:
            return True
    return _ARRAY in data and "numpy" in sys.modules


_registered: set[str] | None = None
"""Names of modules that cloudpickle is to take by value; None until it is loaded."""
_registered_seen = 0
_found_unimportable: list[bytes] = []


def _look_at_registered() -> None:
    """Take note of what users have registered at cloudpickle: it goes by value here, too."""
    global _registered, _registered_seen, _unimportable_names
    if _registered is None:
        cloudpickle = sys.modules.get("cloudpickle.cloudpickle")
        if cloudpickle is None:
            return
        _registered = cloudpickle._PICKLE_BY_VALUE_MODULES
    _registered_seen = len(_registered)
    registered = (name.encode("utf-8", "surrogatepass") for name in list(_registered))
    _unimportable_names = tuple(dict.fromkeys((*_ALWAYS, *_found_unimportable, *registered)))
    _importable.clear()
    _importable.update(_NEVER)


def _is_registered(module_name: str) -> bool:
    """Tell whether a module, or a package that it is in, is registered to go by value."""
    if not _registered:
        return False
    while module_name:
        if module_name in _registered:
            return True
        module_name = module_name.rpartition(".")[0]
    return False


def importable(module_name: str) -> bool:
    """Tell whether another process with the same path would find the module, and is to take it from there.

    Not so modules that users have registered at cloudpickle to go by value.
    Modules that are loaded but lie on no path (loaded by a test runner, made in the script) are registered to be
    pickled by value from then on.
    """
    if sys.path != _searched:  # what was found by a path that is gone would not be found elsewhere
        _searched[:] = sys.path
        _importable.clear()
        _importable.update(_NEVER)
    if _registered is None or len(_registered) != _registered_seen:
        _look_at_registered()
    known = _importable.get(module_name)
    if known is None:
        known = _importable[module_name] = not _is_registered(module_name) and _findable(module_name)
        module = sys.modules.get(module_name)
        if not known and isinstance(module, ModuleType) and not _is_registered(module_name):
            import cloudpickle

            cloudpickle.register_pickle_by_value(module)
            # Kept although the module may become importable later: cloudpickle goes on packing it by value.
            _found_unimportable.append(module_name.encode())
            _look_at_registered()
            _importable[module_name] = False
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
            # Not importlib.util.find_spec(): it returns what is loaded already, wherever that came from.
            spec = PathFinder.find_spec(name, None if path is None else list(path))
        except (ImportError, ValueError):
            return False
        if spec is None:
            return False
        path = spec.submodule_search_locations
        if path is None and depth < len(parts):
            return False
    origin = getattr(sys.modules.get(module_name), "__file__", None)
    # Another file of the same name may lie earlier on the path: then other processes would import that one.
    return spec is None or origin is None or spec.origin is None or _same_file(spec.origin, origin)


def _same_file(one: str, other: str) -> bool:
    from os.path import realpath

    return realpath(one) == realpath(other)
