"""Plans of the usual tasks with remote files: a Python app that is given some, which the submit side brings.

It is what ``_Planner`` of ``manager`` would make, for a third of the CPU time: for small files the plan was a good part
of all the work. Whatever is out of the ordinary is left to that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from flow_core.files import File
from flow_core.graph.resolver import ATOMS
from flow_core.hooks import is_own
from flow_core.interfaces.staging import Direction, Staging, Transfer

if TYPE_CHECKING:
    from flow_core.interfaces.executor import Executor
    from flow_core.staging.places import StagedPaths

_IN = Direction.IN
_NOT_REMOTE = frozenset(("file", "zip"))  # whose names may be relative to a directory
_FEW = 8  # files of a call that are looked at ahead of it; more are left to the common way


class RemoteInputs:
    """The remote files that one call is given. Used by one thread, once.

    Attributes:
        args: The positional arguments with Files that know their local path.
        kwargs: The keyword arguments likewise.
        work: What the methods are to bring.
    """

    def __init__(self, args: tuple[object, ...], kwargs: dict[str, object]) -> None:
        """Take the arguments as they are given."""
        self.args, self.kwargs = args, kwargs
        self.work: list[tuple[Staging, list[Transfer]]] = []

    def take(
        self,
        method_of: Callable[[File], Staging | None],
        places: StagedPaths,
        task_id: int,
        executor: Executor,
        versioned: bool,
    ) -> bool:
        """Plan how they are brought in; False, and nothing has happened, where this is no usual call."""
        files = self._files()
        if not files:
            return False
        methods = []
        for file in files.values():
            method = method_of(file)
            if method is None or not _brings_here(method):
                return False
            methods.append(method)
        mine = places.begin(task_id)
        home, label, run = executor.working_dir, executor.label, places.token
        local: dict[str, File] = {}
        by_method: dict[int, list[Transfer]] = {}
        for file, method in zip(files.values(), methods, strict=True):
            path = mine.path(mine.here(home or method.files_home), file)
            local[file.url] = file.at(path)
            if id(method) not in by_method:
                by_method[id(method)] = []
                self.work.append((method, by_method[id(method)]))
            by_method[id(method)].append(Transfer(file, Path(path), _IN, task_id, label, run, home, versioned))
        self.args = tuple([local[value.url] if type(value) is File else value for value in self.args])
        if self.kwargs:
            self.kwargs = {name: _replaced(value, local) for name, value in self.kwargs.items()}
        return True

    def _files(self) -> Mapping[str, File]:
        """Return the files by their URLs; none if anything else than plain files and plain values is there."""
        found: dict[str, File] = {}
        for value in self.args:
            if type(value) is File:
                if not _is_plain(value, found):
                    return {}
            elif type(value) not in ATOMS:
                return {}
        for name, value in self.kwargs.items():
            for one in value if name == "inputs" and type(value) is list else (value,):
                if type(one) is File:
                    if not _is_plain(one, found):
                        return {}
                elif type(one) not in ATOMS:
                    return {}
        return found if len(found) <= _FEW else {}


def _is_plain(file: File, found: dict[str, File]) -> bool:
    """Note a file; False if it is not remote, not to be brought just as it is, or was found before."""
    if file.scheme in _NOT_REMOTE or file.local_path is not None or file.digest is not None or file.directory:
        return False
    return found.setdefault(file.url, file) is file


def _replaced(value: object, local: dict[str, File]) -> object:
    if type(value) is File:
        return local[value.url]
    if type(value) is list:
        return [local[one.url] if type(one) is File else one for one in value]
    return value


def _brings_here(method: Staging) -> bool:
    """Return whether a method is one of Flow's that brings files to the submit side, at places that Flow chooses."""
    kind = type(method)
    own_way = kind.step is Staging.step and kind.local_path is Staging.local_path
    return own_way and is_own(method) and not method.files_on_node
