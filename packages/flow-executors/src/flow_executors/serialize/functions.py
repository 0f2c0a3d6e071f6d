"""Functions as blobs: packed once, named by digest, by reference where they can be imported, else by value.

Content of a function's blob: ``R`` and the reference (``flow_core.remote.refs``) as UTF-8, or ``P`` and a pickle of the
function by value.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from hashlib import blake2b
from importlib.machinery import BuiltinImporter, FrozenImporter, PathFinder
from types import ModuleType

import cloudpickle

from flow_core.errors import SerializationError
from flow_core.remote import by_value
from flow_core.remote.refs import reference
from flow_executors.wire.kinds import DIGEST_SIZE

REFERENCE = b"R"
BY_VALUE = b"P"
_LIMIT = 4096


def digest_of(blob: bytes) -> bytes:
    """Return the name of a blob."""
    return blake2b(blob, digest_size=DIGEST_SIZE).digest()


class Functions:
    """The functions of a run that were sent or are to be. Any thread."""

    __slots__ = ("_blobs", "_by_identity", "_condemned", "_limit")

    def __init__(self) -> None:
        self._by_identity: dict[int, tuple[object, bytes]] = {}  # the function is kept, so its id stays its own
        self._blobs: dict[bytes, bytes] = {}
        self._condemned: set[bytes] = set()
        self._limit = _LIMIT

    def digest(self, func: Callable[..., object]) -> bytes:
        """Return the digest of a function, packing it at its first use.

        Raises:
            SerializationError: it cannot be packed; the message names it.
        """
        known = self._by_identity.get(id(func))
        if known is not None:
            return known[1]
        blob = pack_function(func)
        digest = digest_of(blob)
        self._condemned.discard(digest)
        self._blobs[digest] = blob
        self._by_identity[id(func)] = (func, digest)
        return digest

    def blob(self, digest: bytes) -> bytes | None:
        """Return a blob by its digest; None if it was never made, or forgotten."""
        return self._blobs.get(digest)

    @property
    def full(self) -> bool:
        """Whether so many functions are kept that those not in use should be forgotten."""
        return len(self._by_identity) > self._limit

    def forget_others(self, in_use: Iterable[bytes]) -> set[bytes]:
        """Forget functions whose digests are not in use; return the digests forgotten.

        In two steps: what is not in use is condemned, and forgotten at the next call if it is still not in use. A task
        that is being submitted right now keeps its function by that.
        """
        keep = set(in_use)
        gone = self._condemned & self._blobs.keys() - keep
        for digest in gone:
            del self._blobs[digest]
        self._by_identity = {key: pair for key, pair in list(self._by_identity.items()) if pair[1] in keep}
        self._condemned = self._blobs.keys() - keep
        self._limit = max(_LIMIT, 2 * len(self._by_identity))
        return gone


def pack_function(func: Callable[..., object]) -> bytes:
    """Return a function's blob.

    Raises:
        SerializationError: it cannot be packed; the message names it and what it holds.
    """
    ref = reference(func)
    if ref is not None and importable(ref.partition(":")[0]):
        return REFERENCE + ref.encode()
    try:
        return BY_VALUE + by_value.dumps(func)
    except Exception as error:
        name = getattr(func, "__qualname__", repr(func))
        raise SerializationError(
            f"the function {name} cannot be sent to workers: {type(error).__name__}: {error}. It, or something that "
            "it refers to (a global, a default, a variable of its enclosing function), cannot be pickled"
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
