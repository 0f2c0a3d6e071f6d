"""The steps around a task that makes files: their directories, room at their places, a look for them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
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
        inputs: Absolute paths of files that the task is given: where it makes them, too, it changes them.
    """

    app: str
    task: str
    number: int
    directory: str
    contested: bool = False
    inputs: set[str] = field(default_factory=set)
    _changed: dict[str, bool] = field(default_factory=dict)
    """By the path of an output: whether it is an input, too. Asked for when all inputs are known."""

    def is_given(self, file: File) -> None:
        """Note that the task is given a file."""
        self.inputs.add(self._absolute(file))

    def steps(self, outputs: Sequence[File]) -> list[TaskStep]:
        """Return the steps for outputs, outermost first."""
        if not outputs:
            return []
        # Paths on a node are relative to where the task runs, and those of the script to where the call was made.
        on_node = [file for file in outputs if _on_node(file)]
        others = [file for file in outputs if not _on_node(file)]
        sets = tuple(self._set_of(number, file) for number, file in enumerate(outputs) if file.kind != "file")
        # The innermost: it is to see what the function itself has made.
        find = [FindOutputs(self.app, sets)] if sets else []
        return [*self._steps(others, self.directory), *self._steps(on_node, ""), *find]

    def replaced(self, outputs: Sequence[File]) -> tuple[str, ...]:
        """Return the absolute paths of outputs where older ones are moved aside."""
        return tuple(self._absolute(file) for file in outputs if self._replaces(file))

    def _set_of(self, number: int, file: File) -> OutputSet:
        directory = "" if of_a_task(file.place) else self.directory
        path = relative([file], directory)[0]
        pattern = file.pattern if isinstance(file, Glob) else ""
        base = path[: len(path) - len(pattern)]
        return OutputSet(number, base, pattern, masked(file.url), self._is_changed(file), directory)

    def _steps(self, outputs: Sequence[File], directory: str) -> list[TaskStep]:
        if not outputs:
            return []
        places = [(path, file) for file in outputs for path in relative([file], directory)]
        needed = [
            Path(path[: -len(file.pattern)]) if isinstance(file, Glob) else Path(path).parent for path, file in places
        ]
        folders = tuple(dict.fromkeys(str(folder) for folder in needed if folder != Path()))
        outputs = [file for file in outputs if file.kind != "pattern"]
        paths = relative(outputs, directory)
        replaced = relative([file for file in outputs if self._replaces(file)], directory)
        # A staged input that the task changes may be a hard link of the cache's file, which must stay as it is.
        shared = [file for file in outputs if file.kind == "file" and of_a_task(file.place) and self._is_changed(file)]
        check = CheckOutputs(self.app, paths, directory, replaced, relative(shared, directory), self.task, self.number)
        make = [MakeDirectories(folders, directory)] if folders else []
        return [*make, check] if paths else [*make]

    def _replaces(self, file: File) -> bool:
        """Tell whether what lies at a place is older: in the directory of a try it never is."""
        # What lies there may be what the other task has just made; to move it aside made that one fail.
        if self.contested or file.kind == "pattern":
            return False
        return not of_a_task(file.place) and not self._is_changed(file)

    def _is_changed(self, file: File) -> bool:
        if file.update:
            return True
        path = self._absolute(file)
        changed = self._changed.get(path)
        if changed is None:
            # By text first; the file system is asked only if there are inputs and the path is absolute.
            changed = path in self.inputs or (bool(self.inputs) and os.path.isabs(path) and self._is_input(path))
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


def _on_node(file: File) -> bool:
    return of_a_task(file.place) and not os.path.isabs(file.place)


def _is_same(path: str, there: os.stat_result) -> bool:
    try:
        return os.path.samestat(os.stat(path), there)
    except (OSError, ValueError):
        return False


def relative(files: Iterable[File], directory: str) -> tuple[str, ...]:
    """Return the paths of files, each once, those in the directory of the call relative to it as they were given."""
    return tuple(dict.fromkeys(file.given if file.directory == directory != "" else file.place for file in files))
