"""The steps around a task that makes files: their directories, room at their places, a look for them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from flow_core.files import File, Glob, masked
from flow_core.interfaces.call import TaskStep
from flow_core.remote.output_sets import FindOutputs, OutputSet
from flow_core.remote.outputs import CheckOutputs, MakeDirectories
from flow_core.remote.staged import of_a_task


@dataclass(slots=True)
class Outputs:
    """Outputs of one try: which steps they need, and where older files are moved aside.

    Attributes:
        app: Name of the app.
        task: Name of the task, that no other task of any run has.
        number: Of the try, from 1.
        directory: What relative paths are relative to; empty for the directory that the task runs in.
        contested: Whether another unfinished task makes one of them, too: what lies there may be its, and stays.
        stays: Whether all tries of the task are in this process.
        inputs: Absolute paths of files that the task is given: where it makes them, too, it changes them.
        replaced: Once there are steps: the absolute paths of outputs where older ones are moved aside.
    """

    app: str
    task: str
    number: int
    directory: str
    contested: bool = False
    stays: bool = False
    inputs: set[str] = field(default_factory=set)
    replaced: list[str] = field(default_factory=list)
    _changed: dict[str, bool] = field(default_factory=dict)
    """By the path of an output: whether it is an input, too. Asked for when all inputs are known."""

    def is_given(self, file: File) -> None:
        """Note that the task is given a file."""
        self.inputs.add(self._absolute(file))

    def steps(self, outputs: Sequence[File]) -> list[TaskStep]:
        """Return the steps for outputs, outermost first. Called once, when all inputs are known."""
        # Paths on a node are relative to where the task runs, and those of the script to where the call was made.
        here, on_node = _PathsOfOutputs(self.directory), _PathsOfOutputs("")
        sets: list[OutputSet] = []
        for number, file in enumerate(outputs):
            place = file.place
            of_task, changed = of_a_task(place), self._is_changed(file)
            side = on_node if of_task and not os.path.isabs(place) else here
            # What lies at a place is older, but not in the directory of a try. And it may be what another task has
            # just made: to move it aside made that one fail.
            replaced = not (of_task or changed or self.contested or file.kind == "pattern")
            # A staged input that the task changes may be a hard link of the cache's file, which must stay as it is.
            side.add(file, place, replaced, of_task and changed and file.kind == "file")
            if replaced and self.directory:
                self.replaced.append(self._absolute(file))
            if file.kind != "file":
                sets.append(_set_of(number, file, "" if of_task else self.directory, changed))
        # The innermost: it is to see what the function itself has made.
        find = [FindOutputs(self.app, tuple(sets))] if sets else []
        return [*self._steps(here), *self._steps(on_node), *find]

    def _steps(self, side: _PathsOfOutputs) -> list[TaskStep]:
        steps: list[TaskStep] = [MakeDirectories(tuple(side.folders), side.directory)] if side.folders else []
        if side.paths:
            paths, replaced, updated = tuple(side.paths), tuple(side.replaced), tuple(side.updated)
            who = self.task, self.number, self.stays
            steps.append(CheckOutputs(self.app, paths, side.directory, replaced, updated, *who))
        return steps

    def _is_changed(self, file: File) -> bool:
        if file.update or not self.inputs:
            return file.update
        path = self._absolute(file)
        changed = self._changed.get(path)
        if changed is None:
            # By text first; the file system is asked only if the path is absolute.
            changed = path in self.inputs or (os.path.isabs(path) and self._is_input(path))
            self._changed[path] = changed
        return changed

    def _is_input(self, path: str) -> bool:
        """Tell whether an absolute path leads to an input of another name, by symbolic links: the file is the same."""
        try:
            # The name that a link leads to counts, and not a hard link: two names of one file may be written apart.
            there = os.stat(path)
            real = os.path.realpath(path)
        except (OSError, ValueError):
            return False
        return any(_is_same(given, there) and os.path.realpath(given) == real for given in self.inputs)

    def _absolute(self, file: File) -> str:
        return os.path.normpath(os.path.join(self.directory, file.place))


class _PathsOfOutputs:
    """Paths of outputs, each once, that are relative to one directory.

    Attributes:
        directory: The directory; empty for the one that the task runs in.
        folders: Directories that outputs are in, but for that one.
        paths: Files or directories that the task must make.
        replaced: Those of them where an older one is moved aside.
        updated: Those of them that the task changes, and that may share their content with the cache.
    """

    __slots__ = ("directory", "folders", "paths", "replaced", "updated")

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.folders: dict[str, None] = {}
        self.paths: dict[str, None] = {}
        self.replaced: dict[str, None] = {}
        self.updated: dict[str, None] = {}

    def add(self, file: File, place: str, replaced: bool, updated: bool) -> None:
        """Add an output, which lies at a place."""
        path = file.given if file.directory == self.directory != "" else place
        folder = _plain(path[: -len(file.pattern)]) if isinstance(file, Glob) else _folder_of(path)
        if folder:
            self.folders[folder] = None
        if file.kind == "pattern":
            return
        self.paths[path] = None
        if replaced:
            self.replaced[path] = None
        if updated:
            self.updated[path] = None


def _set_of(number: int, file: File, directory: str, changed: bool) -> OutputSet:
    path = relative([file], directory)[0]
    pattern = file.pattern if isinstance(file, Glob) else ""
    return OutputSet(number, path[: len(path) - len(pattern)], pattern, masked(file.url), changed, directory)


def _folder_of(path: str) -> str:
    """Return the directory that something is in; empty for the current one."""
    folder, name = os.path.split(path)
    # pathlib takes ten times as long, and the directories of most outputs are few.
    return _plain(folder) if name not in ("", ".", "..") else _plain(str(Path(path).parent))


@lru_cache(maxsize=256)
def _plain(folder: str) -> str:
    """Return the shortest way to write the path of a directory; empty for the current one."""
    return "" if Path(folder) == Path() else str(Path(folder))


def _is_same(path: str, there: os.stat_result) -> bool:
    try:
        return os.path.samestat(os.stat(path), there)
    except (OSError, ValueError):
        return False


def relative(files: Iterable[File], directory: str) -> tuple[str, ...]:
    """Return the paths of files, each once, those in the directory of the call relative to it as they were given."""
    return tuple(dict.fromkeys(file.given if file.directory == directory != "" else file.place for file in files))
