"""The script's own modules, as nodes get them that do not see its files: a list by digest, and the files of each.

Which modules: those that the script has imported and that are its own (neither installed, nor of the standard library,
nor of Flow), and those that lie beside it, which an app may import first. The list says only what each is; its files go
to a node that imports it.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.machinery import PathFinder
from pathlib import Path

from flow_core.remote.functions import digest_of
from flow_core.remote.own_modules import is_local
from flow_core.remote.script_modules import ListedModule, content_digest, pack_files, pack_list

_LOOK_S = 1.0  # seconds between two looks at the files, at least; a module that is imported is seen at once
_SHARE = 20  # a look that takes long is followed by a pause of so many times that
_BYTES = 64 << 20  # bytes of one package; of a larger one only code goes
_FILES = 4000  # files of one package, likewise
_BYTES_BESIDE = 4 << 20  # bytes of a package that is not imported: of a larger one only code goes
_BESIDE = 1000  # names in the script's directory; in a larger one only what is imported is looked at
_LISTS = 64  # lists that are kept: tasks that were submitted with an older one may still be on their way
_CODE = (".py", ".so", ".pyd", ".pyi", ".json", ".toml", ".cfg", ".yaml", ".yml")
_NO_CODE = frozenset({"__pycache__", "runinfo", "node_modules"})
_INSTALLED = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")

State = tuple[tuple[str, int, int], ...]
"""Paths, sizes and times of files."""


@dataclass(frozen=True, slots=True)
class _Unit:
    """A module or package as it was at the last look."""

    state: State
    listed: ListedModule
    blob: bytes
    limit: int


class ScriptCode:
    """The list of the script's own modules, as it is now. Any thread.

    Args:
        chosen: Names of modules, or paths of modules and packages, that are to go; None: all of the script's own.
        logger: Where a package that is too large is told.
    """

    def __init__(self, chosen: Sequence[str] | None, logger: logging.Logger) -> None:
        self._chosen = None if chosen is None else tuple(chosen)
        self._logger = logger
        self._lock = threading.Lock()
        self._units: dict[str, _Unit] = {}
        self._blobs: dict[bytes, bytes] = {}
        self._lists: list[tuple[bytes, tuple[bytes, ...]]] = []  # digests of lists, and of what they name
        self._seen = 0
        self._look_at = 0.0
        self._number = 0
        self._told: set[str] = set()
        self._current: bytes | None = None

    def current(self) -> bytes | None:
        """Return the digest of the list as it is now; None where there is nothing to list."""
        count = len(sys.modules)
        due = time.monotonic() > self._look_at
        if due or count != self._seen:
            with self._lock:
                self._look(due)
                self._seen = count
        return self._current

    def blob(self, digest: bytes) -> bytes | None:
        """Return a list, or the files of a module, by its digest; None if it is none of these."""
        return self._blobs.get(digest)

    def _look(self, whole: bool) -> None:
        """Look at what there is; unless at the whole of it, at what was not there the last time."""
        began = time.monotonic()
        units: dict[str, _Unit] = {}
        for name, found, limit in self._found():
            known = self._units.get(name)
            same = known is not None and known.limit == limit and not whole
            unit = known if same else self._unit(name, found, limit)
            if unit is not None:
                units[name] = unit
        if whole:
            ended = time.monotonic()
            self._look_at = ended + max(_LOOK_S, _SHARE * (ended - began))
        if {name: unit.listed for name, unit in units.items()} == {n: u.listed for n, u in self._units.items()}:
            return
        self._units = units
        if not units:
            self._current = None
            return
        self._number += 1
        blob = pack_list(self._number, {name: unit.listed for name, unit in sorted(units.items())})
        digest = digest_of(blob)
        self._blobs[digest] = blob
        self._blobs.update({unit.listed.digest: unit.blob for unit in units.values()})
        self._lists.append((digest, tuple(unit.listed.digest for unit in units.values())))
        del self._lists[:-_LISTS]
        kept = {one for listed, named in self._lists for one in (listed, *named)}
        self._blobs = {one: content for one, content in self._blobs.items() if one in kept}
        self._current = digest

    def _found(self) -> Iterator[tuple[str, list[str], int]]:
        """Yield names of top-level modules, where they are (a file, or directories), and what data they may have."""
        if self._chosen is not None:
            yield from ((name, paths, _BYTES) for name, paths in map(chosen_module, self._chosen) if paths)
            return
        named = set()
        for name, module in list(sys.modules.items()):
            if "." in name or name in ("__main__", "__mp_main__") or not is_local(name) or _goes_by_value(name):
                continue
            paths = _paths_of(module)
            if paths and not any(part in f"{path}{os.sep}" for path in paths for part in _INSTALLED):
                named.add(name)
                yield name, paths, _BYTES
        for name, path in _beside():
            if name not in named and name not in sys.modules and name not in sys.stdlib_module_names:
                yield name, [path], _BYTES_BESIDE

    def _unit(self, name: str, paths: list[str], limit: int) -> _Unit | None:
        try:
            files, state, whole = _files(paths, limit)
            known = self._units.get(name)
            if known is not None and (known.state, known.limit) == (state, limit):
                return known
            content = {inside: Path(path).read_bytes() for inside, path in files.items()}
        except OSError:  # gone, or half written: the next look finds it
            return self._units.get(name)
        if not whole and limit == _BYTES and name not in self._told:
            self._told.add(name)
            self._logger.warning(
                "of the package %s, which is larger than %d MB or %d files, only code goes to nodes: pass data as File",
                name,
                _BYTES >> 20,
                _FILES,
            )
        if not content:
            return None
        blob = pack_files(content)
        origin = next((path for inside, path in files.items() if inside in (f"{name}/__init__.py", f"{name}.py")), "")
        if not origin and len(files) == 1:
            origin = next(iter(files.values()))  # a compiled module
        own = content_digest(Path(origin).read_bytes()) if origin else b""
        return _Unit(state, ListedModule(digest_of(blob), origin, own), blob, limit)


def chosen_module(chosen: str) -> tuple[str, list[str]]:
    """Return the top-level name, and the places, of what a user names; no place where there is nothing."""
    if os.sep in chosen or chosen.endswith(".py"):
        path = os.path.abspath(os.path.expanduser(chosen))
        there = os.path.isdir(path) or os.path.isfile(path)
        return os.path.basename(path).partition(".")[0], [path] if there else []
    name = chosen.partition(".")[0]
    module = sys.modules.get(name)
    if module is not None:
        return name, _paths_of(module)
    try:
        spec = PathFinder.find_spec(name)
    except (ImportError, ValueError):
        return name, []
    if spec is None:
        return name, []
    if spec.submodule_search_locations:
        return name, [os.path.abspath(one) for one in spec.submodule_search_locations]
    return name, [os.path.abspath(spec.origin)] if spec.origin else []


def _paths_of(module: object) -> list[str]:
    places = getattr(module, "__path__", None)
    if places is not None:
        try:
            return [os.path.abspath(one) for one in places if os.path.isdir(one)]
        except TypeError:
            return []
    file = getattr(module, "__file__", None)
    return [os.path.abspath(file)] if isinstance(file, str) and os.path.isfile(file) else []


def _goes_by_value(name: str) -> bool:
    registered = getattr(sys.modules.get("cloudpickle.cloudpickle"), "_PICKLE_BY_VALUE_MODULES", ())
    return name in registered


def _beside() -> Iterator[tuple[str, str]]:
    """Yield modules and packages in the directory of the script."""
    main = getattr(sys.modules.get("__main__"), "__file__", None)
    if not isinstance(main, str):
        return
    folder = os.path.dirname(os.path.abspath(main))
    # Not so with ``python -P``, nor for a command such as pytest: then the script itself would not import from there.
    if not any(os.path.abspath(one or ".") == folder for one in sys.path) or os.path.basename(folder) == "bin":
        return
    if any(part in f"{folder}{os.sep}" for part in _INSTALLED):
        return
    try:
        names = os.listdir(folder)
    except OSError:
        return
    if len(names) > _BESIDE:
        return
    for name in names:
        path = os.path.join(folder, name)
        stem, dot, end = name.partition(".")
        if not stem.isidentifier() or path == os.path.abspath(main):
            continue
        if end == "py" or (not dot and os.path.isfile(os.path.join(path, "__init__.py"))):
            yield stem, path


def _files(paths: Iterable[str], limit: int) -> tuple[dict[str, str], State, bool]:
    """Return files by their paths below the directory that is on the path, what tells their versions, and if all go.

    Raises:
        OSError: one is gone meanwhile.
    """
    found: dict[str, tuple[str, os.stat_result]] = {}
    for path in paths:
        parent = os.path.dirname(path)
        for one in _below(path):
            found.setdefault(os.path.relpath(one, parent), (one, os.stat(one)))
    whole = len(found) <= _FILES and sum(status.st_size for _, status in found.values()) <= limit
    if not whole:
        found = {inside: pair for inside, pair in found.items() if inside.endswith(_CODE) and pair[1].st_size < limit}
    state = tuple((inside, status.st_size, status.st_mtime_ns) for inside, (_, status) in sorted(found.items()))
    return {inside: one for inside, (one, _) in found.items()}, state, whole


def _below(path: str) -> Iterator[str]:
    if not os.path.isdir(path):
        yield path
        return
    for folder, folders, names in os.walk(path):
        folders[:] = sorted(one for one in folders if one not in _NO_CODE and not one.startswith("."))
        for name in names:
            one = os.path.join(folder, name)
            if not name.startswith(".") and not name.endswith((".pyc", ".pyo")) and os.path.isfile(one):
                yield one
