"""Functions that use modules of the user's own: on a node these modules are made to be what they are in the script.

A node imports such a module from its file there, while the script may have set its values, redefined or reloaded its
code, or edited the file since. So what a function names of them travels too: of functions and classes digests, by which
the node knows whether it has the same code; of data the values, which it sets; of data that is too large a digest. Of a
function whose code is other here all is taken by value instead.
"""

from __future__ import annotations

import os
import pickle
import sys
import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from flow_core.errors import DeserializationError
from flow_core.fork_locks import renewed_after_fork
from flow_core.remote.classes import ClassState, apply, is_current
from flow_core.remote.contents import contents, meaning
from flow_core.remote.refs import import_anew

Path = tuple[str, str]
"""Name of a module, and a path of attributes in it, as ``("settings", "Limits.upper")``."""


@dataclass(frozen=True, slots=True)
class Packed:
    """A function with what it names of the user's own modules.

    Attributes:
        script: Process and machine of the script; there nothing is set: it has the modules themselves.
        function: Its blob, by reference or by value, its modules by name.
        whole: A blob in which all of the user's own code and data is by value; empty if there can be none.
        replaced: What it takes of modules that it imports itself, by value too: put there if the code is other.
        code: Digests of functions and classes, as ``meaning`` gives them.
        large: Digests of data that is too large to travel, as ``contents`` gives them.
        values: Pickles of data.
        caches: Functions that remember their results (functools), and names of what they are now.
        imported: Paths of data that it takes of modules that it imports itself, so also if it goes by value.
        absent: Names that it looks for in modules, and that these do not have: they were deleted, or never there.
    """

    script: tuple[int, str]
    function: bytes
    whole: bytes
    replaced: tuple[tuple[Path, bytes], ...]
    code: tuple[tuple[Path, bytes], ...]
    large: tuple[tuple[Path, bytes], ...]
    values: tuple[tuple[Path, bytes], ...]
    caches: tuple[tuple[Path, bytes], ...]
    imported: tuple[Path, ...]
    absent: tuple[Path, ...] = ()


def here() -> tuple[int, str]:
    """Return what tells this process from others."""
    return os.getpid(), os.uname().nodename


def load_packed(
    packed: Packed, load: Callable[[bytes], Callable[..., object]]
) -> tuple[Callable[..., object], Surroundings]:
    """Return a function, and the surroundings to be prepared before each of its calls.

    Raises:
        DeserializationError: this machine has other code, or other large data, than the script, and it cannot travel.
        ImportError, AttributeError: a module is not here, or is another version, and the code cannot travel.
    """
    # In the script itself modules are what they are: to set them would undo what the script has changed since.
    if packed.script == here():
        return load(packed.whole or packed.function), NOTHING
    paths = tuple(path for path, _ in (*packed.code, *packed.large))
    with _lock:
        # Code that an earlier call has replaced is put back first, since it is the module's own that is compared.
        _restore(paths)
        try:
            differs = next((path for path, digest in packed.code if meaning(at(path)) != digest), None)
        except Exception:
            if not packed.whole:
                raise
            # A module that cannot be imported here, or lacks a name: the same as other code, if all of it travels by
            # value.
            differs = ("", "")
        if differs is None:
            # Large data is compared where the code is the module's own only: by value it could not have travelled.
            _check(packed.large)
            return load(packed.function), Surroundings(packed.values, paths, {}, packed.caches, absent=packed.absent)
    if packed.whole:
        replaced = {path: load(blob) for path, blob in packed.replaced}
        values = tuple(pair for pair in packed.values if replaced or pair[0] in packed.imported)
        absent = tuple(path for path in packed.absent if replaced or path in packed.imported)
        return load(packed.whole), Surroundings(values, (), replaced, absent=absent)
    raise DeserializationError(
        f"{'.'.join(differs)} is not the same code on this machine as in the script, and could not be sent by value, "
        "since what it names is too large or cannot be pickled. Was its file edited, or the module reloaded? Make the "
        "files agree and start the workers anew"
    )


def _check(large: tuple[tuple[Path, bytes], ...]) -> None:
    for path, digest in large:
        if contents(at(path)) != digest:
            raise DeserializationError(
                f"{'.'.join(path)} is not the same on this machine as in the script, and too large to travel with a "
                "function. Pass it as an argument, or write it to a file and pass a File"
            )


def at(path: Path) -> object:
    """Return what a path leads to. Raises ImportError, AttributeError."""
    owner, name = _owner(path)
    found: object = getattr(owner, name)
    return found


def _owner(path: Path) -> tuple[object, str]:
    module, attributes = path
    *owners, name = attributes.split(".")
    # import_anew reads a half-written module again the next time, which importlib alone would not.
    found: object = sys.modules.get(module) or import_anew(module)
    for owner in owners:
        found = getattr(found, owner)
    return found, name


# Re-entrant: what is unpickled under the lock may load other functions.
_lock = renewed_after_fork(threading.RLock())
_set: dict[Path, bytes] = {}
"""Pickles of what was set last, by path; ``_ABSENT`` of what was taken away."""
_ABSENT = b""
_NOTHING = object()


_remembering: dict[Path, bytes] = {}
"""Names of what functions were that remember their results, by path: of these are the results that they hold."""


_originals: dict[Path, object] = {}
"""Original code, by path, of what is replaced now."""


@dataclass(frozen=True, slots=True, eq=False)
class Surroundings:
    """Values and code of modules and classes, to be what they were in the script at the calls of one function.

    Any thread. Modules belong to the whole process: where calls of several versions run at once, in threads, the last
    one decides.

    Attributes:
        values: Pickles of values.
        code: Code, and large data, that must be that of the module's own file.
        replaced: Code to be put in the place of that.
        caches: Functions that remember their results, and names of what they are in this version.
        classes: Classes that came by value, with what they are made of.
        absent: Names that modules do not have.
    """

    values: tuple[tuple[Path, bytes], ...]
    code: tuple[Path, ...]
    replaced: dict[Path, Callable[..., object]]
    caches: tuple[tuple[Path, bytes], ...] = ()
    classes: tuple[tuple[type, ClassState], ...] = ()
    absent: tuple[Path, ...] = ()

    def with_classes(self, classes: Sequence[tuple[type, ClassState]]) -> Surroundings:
        """Return the same surroundings with classes that came by value added."""
        return replace(self, classes=tuple(classes)) if classes else self

    def prepare(self, of_argument: bool = False) -> None:
        """Set what is not so already. What a task has changed since it was set stays, until another value is set.

        For an argument classes of the same version stay as they are for the function.
        """
        for cls, state in self.classes:
            if not (of_argument and is_current(cls, state)):
                apply(cls, state)
        # The common case first: this runs before each call.
        if not self.values and not self.replaced and not self.caches and not self.absent and not _originals:
            return
        with _lock:
            if _originals:
                _restore(self.code)
            for path, pickled in self.values:
                if _set.get(path) != pickled:
                    self._set(path, pickled)
            for path, code in self.replaced.items():
                owner, name = _owner(path)
                # Only the first original is the module's own; what stands there later was put there by calls.
                _originals.setdefault(path, getattr(owner, name, None))
                setattr(owner, name, code)
            for path in self.absent:
                if _set.get(path) != _ABSENT:  # else what stands there is a task's own
                    _take_away(path)
            for path, version in self.caches:
                if _remembering.get(path) != version:
                    _forget(path)
                    _remembering[path] = version

    @staticmethod
    def _set(path: Path, pickled: bytes) -> None:
        owner, name = _owner(path)
        value = pickle.loads(pickled)
        # What is equal already stays the same object, since others may hold it.
        if path in _set or not _is_same(_current(owner, name), value):
            _put(owner, name, value)
        _set[path] = pickled


NOTHING = Surroundings((), (), {})


def _take_away(path: Path) -> None:
    """Have a module be without a name, as it is in the script. It comes back for code that needs what stood there."""
    owner, name = _owner(path)
    if name in vars(owner):
        _originals.setdefault(path, vars(owner)[name])
        delattr(owner, name)
    _set[path] = _ABSENT


def _restore(paths: tuple[Path, ...]) -> None:
    for path in paths:
        if path in _originals:
            owner, name = _owner(path)
            setattr(owner, name, _originals.pop(path))
            _set.pop(path, None)


def _is_same(one: object, other: object) -> bool:
    return type(one) is type(other) and contents(one) == contents(other)


def _forget(path: Path) -> None:
    """Have a function forget its results: they may be of another version."""
    owner, name = _owner(path)
    clear = getattr(_current(owner, name), "cache_clear", None)
    if clear is not None:
        clear()


def _current(owner: object, name: str) -> object:
    """Return what stands in a place; of a class the attribute itself, not what a descriptor makes of it."""
    return vars(owner).get(name, _NOTHING) if isinstance(owner, type) else getattr(owner, name, _NOTHING)


def _put(owner: object, name: str, value: object) -> None:
    """Set a value; containers in place, since other names may mean them too."""
    current = _current(owner, name)
    if isinstance(current, defaultdict) and isinstance(value, defaultdict):
        current.default_factory = value.default_factory
    if type(current) is type(value) and isinstance(value, (dict, list, set)) and isinstance(current, (dict, list, set)):
        if isinstance(current, list):
            current[:] = value
        else:
            current.clear()
            current.update(value)
        # Subclasses of containers may have attributes beside their elements.
        if hasattr(value, "__dict__"):
            vars(current).clear()
            vars(current).update(vars(value))
    else:
        setattr(owner, name, value)
