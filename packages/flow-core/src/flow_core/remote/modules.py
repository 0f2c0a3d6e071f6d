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
from flow_core.remote.classes import ClassState, apply
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


def here() -> tuple[int, str]:
    """Return what tells this process from others."""
    return os.getpid(), os.uname().nodename


def load_packed(
    packed: Packed, load: Callable[[bytes], Callable[..., object]]
) -> tuple[Callable[..., object], Surroundings]:
    """Return a function, and what is to be seen to before each of its calls.

    Raises:
        DeserializationError: this machine has other code, or other large data, than the script, and it cannot travel.
        ImportError, AttributeError: a module is not here, or is another version, and the code cannot travel.
    """
    if packed.script == here():
        return load(packed.whole or packed.function), NOTHING
    paths = tuple(path for path, _ in packed.code)
    with _lock:
        _restore(paths)
        try:
            differs = next((path for path, digest in packed.code if meaning(at(path)) != digest), None)
        except Exception:
            if not packed.whole:
                raise
            differs = ("", "")
        if differs is None:
            _check(packed.large)
            return load(packed.function), Surroundings(packed.values, paths, {}, packed.caches)
    if packed.whole:
        replaced = {path: load(blob) for path, blob in packed.replaced}
        values = tuple(pair for pair in packed.values if replaced or pair[0] in packed.imported)
        return load(packed.whole), Surroundings(values, (), replaced)
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
    found: object = sys.modules.get(module) or import_anew(module)
    for owner in owners:
        found = getattr(found, owner)
    return found, name


_lock = threading.RLock()
_set: dict[Path, bytes] = {}
"""Pickles of what was set last, by path."""


_remembering: dict[Path, bytes] = {}
"""Names of what functions were that remember their results, by path: of these are the results that they hold."""


_originals: dict[Path, object] = {}
"""What was in the places of code that is replaced now."""


@dataclass(frozen=True, slots=True, eq=False)
class Surroundings:
    """Values and code of modules and classes, to be what they were in the script at the calls of one function.

    Any thread. Modules belong to the whole process: where calls of several versions run at once, in threads, the last
    one decides.

    Attributes:
        values: Pickles of values.
        code: Code that must be that of the module's own file.
        replaced: Code to be put in the place of that.
        caches: Functions that remember their results, and names of what they are in this version.
        classes: Classes that came by value, with what they are made of.
    """

    values: tuple[tuple[Path, bytes], ...]
    code: tuple[Path, ...]
    replaced: dict[Path, Callable[..., object]]
    caches: tuple[tuple[Path, bytes], ...] = ()
    classes: tuple[tuple[type, ClassState], ...] = ()

    def with_classes(self, classes: Sequence[tuple[type, ClassState]]) -> Surroundings:
        """Return the same with classes."""
        return replace(self, classes=tuple(classes)) if classes else self

    def prepare(self) -> None:
        """Set what is not so already. What a task has changed since it was set stays, until another value is set."""
        for cls, state in self.classes:
            apply(cls, state)
        if not self.values and not self.replaced and not self.caches and not _originals:
            return
        with _lock:
            if _originals:
                _restore(self.code)
            for path, pickled in self.values:
                if _set.get(path) != pickled:
                    self._set(path, pickled)
            for path, code in self.replaced.items():
                owner, name = _owner(path)
                _originals.setdefault(path, getattr(owner, name, None))
                setattr(owner, name, code)
            for path, version in self.caches:
                if _remembering.get(path) != version:
                    _forget(path)
                    _remembering[path] = version

    @staticmethod
    def _set(path: Path, pickled: bytes) -> None:
        owner, name = _owner(path)
        value = pickle.loads(pickled)
        if path in _set or not _is_same(_current(owner, name), value):
            _put(owner, name, value)
        _set[path] = pickled


NOTHING = Surroundings((), (), {})


def _restore(paths: tuple[Path, ...]) -> None:
    for path in paths:
        if path in _originals:
            owner, name = _owner(path)
            setattr(owner, name, _originals.pop(path))


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
    return vars(owner).get(name, _set) if isinstance(owner, type) else getattr(owner, name, _set)


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
        if hasattr(value, "__dict__"):
            vars(current).clear()
            vars(current).update(vars(value))
    else:
        setattr(owner, name, value)
