"""Files of the script's machine for tasks on nodes that do not see them: their places there, and what moves them.

The step travels with each task that has files by path, and is the first. Where the node sees the run's directory it is
left out. Elsewhere it gives the try a directory of its own, in which the files lie as they do around the directory of
the call, and has the arguments and the other steps name them there.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from flow_core.errors import StagingError
from flow_core.folders import current_directory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from flow_core.files import File
    from flow_core.interfaces.call import NodeContext, ScriptFilesSession, TaskStep

# Below it lies what is not below the directory of the call, by its whole path.
_ELSEWHERE = ".flow-root"


@dataclass(frozen=True, slots=True)
class ScriptFile:
    """A file, directory or pattern on the script's machine that a task names.

    Attributes:
        place: How the task names it: ``File.place``, of a stream its path from the directory of the call.
        path: Where it is on the script's machine, absolute; of a pattern the directory before that.
        kind: As of a File, or ``"stream"``.
        pattern: The pattern of a pattern.
        mode: Of a stream: how its file is opened; what begins with ``a`` adds to it.
        update: Of an output: it is brought before the task if it is there.
        url: How events name it, without password; empty where that is its place.
    """

    place: str
    path: str
    kind: str = "file"
    pattern: str = ""
    mode: str = ""
    update: bool = False
    url: str = ""


@dataclass(frozen=True, slots=True)
class FilesByConnection:
    """The step that brings a task's files over the connection of its manager, where the node does not see them.

    The script serves what is named here, of its own copy of this, and takes nothing else.

    Attributes:
        directory: That of the call, absolute; empty where it is not known.
        inputs: What the task is given.
        outputs: What it makes, standard streams included.
    """

    directory: str
    inputs: tuple[ScriptFile, ...]
    outputs: tuple[ScriptFile, ...]

    @property
    def files(self) -> tuple[ScriptFile, ...]:
        """All of them, the inputs first: numbers of files are positions here."""
        return (*self.inputs, *self.outputs)

    def run(self, inner: Callable[[], object], where: NodeContext) -> object:
        """Run ``inner``: this node sees the files, or ``bound`` was asked."""
        return inner()

    def bound(
        self, args: Sequence[object], kwargs: dict[str, object], steps: Sequence[TaskStep], where: NodeContext
    ) -> tuple[Sequence[object], dict[str, object], Sequence[TaskStep]]:
        """Return arguments and steps as they are on this node. Raises StagingError."""
        session = where.script_files.begin() if where.script_files is not None else None
        if session is None:
            return args, kwargs, steps
        from flow_core.remote.file_arguments import replaced

        try:
            places = Places(self, session.root)
            given = replaced(tuple(args), places.file), replaced(kwargs, places.file)
            inner = [moved for step in steps if (moved := places.step(step)) is not None]
        except BaseException:
            session.close()
            raise
        return *given, (_Carried(self, session, places), *inner)


class Places:
    """Where on this node the files of a task lie, below the directory of the try.

    Attributes:
        local: For each of the files its path from there, in their order.
    """

    __slots__ = ("_by_place", "_files", "local", "root")

    def __init__(self, step: FilesByConnection, root: str) -> None:
        self.root = root
        self._files = step.files
        self.local = tuple(local_path(each.path, step.directory) for each in self._files)
        self._by_place: dict[str, str] = {}
        for each, local in zip(self._files, self.local, strict=True):
            place = _plain(each.place)
            self._by_place[place] = os.path.join(local, each.pattern) if each.pattern else local
            if each.pattern:
                self._by_place.setdefault(_plain(place.removesuffix(each.pattern)), local)

    def file(self, file: File) -> File:
        """Return a File of an argument as it is named here."""
        try:
            local = self._by_place.get(_plain(file.place))
        except ValueError:  # a remote one that nobody has moved
            return file
        if local is None:
            return file
        if file.local_path is None and local == os.path.normpath(file.given):
            twin = file.clean_copy()  # the app sees the relative path as it was given
            twin.directory = self.root
            return twin
        whole = os.path.join(self.root, local)
        return file.at(whole.removesuffix(os.sep + file.pattern) if file.kind == "pattern" else whole)  # type: ignore[attr-defined]  # of a Glob

    def back(self, file: File) -> File:
        """Return a File of a result as the script names it."""
        try:
            local = os.path.relpath(file.place, self.root)
        except ValueError:
            return file
        for each, mine in zip(self._files, self.local, strict=True):
            if mine == local and each.kind == file.kind:
                twin = file.clean_copy()
                if twin.scheme == "file" and not os.path.isabs(twin.given):
                    twin.directory = each.path[: -len(twin.given) - 1] if each.path.endswith(f"/{twin.given}") else ""
                return twin
        return file

    def step(self, step: TaskStep) -> TaskStep | None:
        """Return another step of the task with the paths that its files have here; None where it has nothing to do."""
        from dataclasses import replace

        from flow_core.remote.bash import BashStep
        from flow_core.remote.digests import CheckDigests
        from flow_core.remote.inputs import CheckInputs
        from flow_core.remote.output_sets import FindOutputs
        from flow_core.remote.outputs import CheckOutputs, MakeDirectories

        if isinstance(step, CheckInputs):
            return replace(step, paths=self._all(step.paths, step.directory), directory=self.root)
        if isinstance(step, CheckOutputs):
            named = [self._all(paths, step.directory) for paths in (step.paths, step.replaced, step.updated)]
            return replace(step, paths=named[0], replaced=named[1], updated=named[2], directory=self.root)
        if isinstance(step, MakeDirectories):
            # What files are put into is made when they are brought.
            above = {os.path.dirname(place) for place in self._by_place} - self._by_place.keys()
            others = [path for path in step.paths if _plain(os.path.join(step.directory, path)) not in above]
            return replace(step, paths=self._all(others, step.directory), directory=self.root) if others else None
        if isinstance(step, CheckDigests):
            stated = [
                tuple(replace(one, path=self._one(one.path, one.directory), directory=self.root) for one in files)
                for files in (step.inputs, step.outputs)
            ]
            return replace(step, inputs=stated[0], outputs=stated[1])
        if isinstance(step, FindOutputs):
            sets = tuple(
                replace(one, path=self._one(one.path, one.directory), directory=self.root) for one in step.sets
            )
            return replace(step, sets=sets)
        if isinstance(step, BashStep):
            streams = [
                None if stream is None else (self._one(stream[0], step.directory), stream[1])
                for stream in (step.stdout, step.stderr)
            ]
            return replace(step, stdout=streams[0], stderr=streams[1], directory=self.root)
        return step

    def _all(self, paths: Sequence[str], directory: str) -> tuple[str, ...]:
        return tuple(self._one(path, directory) for path in paths)

    def _one(self, path: str, directory: str) -> str:
        """Return the path from ``root`` of a file that a step names."""
        place = os.path.join(directory, path)
        local = self._by_place.get(_plain(place))
        if local is None:
            return place  # one that is staged otherwise
        end = "/" if path.endswith("/") else ""
        return f"{local}{end}"


@dataclass(frozen=True, slots=True)
class _Carried:
    """The step on a node that does not see the files. The outermost."""

    step: FilesByConnection
    session: ScriptFilesSession
    places: Places

    def run(self, inner: Callable[[], object], where: NodeContext) -> object:
        """Bring the files, run ``inner`` in the directory of the try, send what it made."""
        session, local = self.session, self.places.local
        try:
            session.bring(local, self._written())
            before = current_directory()
            os.chdir(session.root)
            try:
                result = inner()
            except Exception as error:
                # What a command has written is what explains its failure; of outputs nothing is published.
                try:
                    session.send(self._made(streams=True))
                except StagingError as unsent:
                    error.add_note(f"its standard output and error could not be sent to the script: {unsent}")
                raise
            finally:
                if before:
                    os.chdir(before)
            session.send(self._made())
            from flow_core.interfaces.outcome import with_found, without_found
            from flow_core.remote.file_arguments import replaced

            value, found = without_found(result)
            value = replaced(value, self.places.back)
            return with_found(value, found) if found else value
        finally:
            session.close()

    def _made(self, streams: bool = False) -> list[tuple[int, str, str]]:
        """Return what is there of the outputs, or of the standard streams alone."""
        from flow_core.remote.output_sets import matching

        found: list[tuple[int, str, str]] = []
        first = len(self.step.inputs)
        for number, (each, local) in enumerate(zip(self.step.files, self.places.local, strict=True)):
            path = os.path.join(self.session.root, local)
            if number < first or (streams and each.kind != "stream"):
                continue
            if each.kind in ("file", "stream"):
                found += [(number, "", path)] if os.path.isfile(path) else []
            elif each.kind == "pattern":
                found += [(number, name, os.path.join(path, name)) for name in matching(path, each.pattern)]
            elif os.path.isdir(path):
                found += [(number, "", path), *((number, name, os.path.join(path, name)) for name in _below(path))]
        return found

    def _written(self) -> list[int]:
        """Return the numbers of the files that the task may write to."""
        local, first = self.places.local, len(self.step.inputs)
        made = set(local[first:])
        return [number for number, path in enumerate(local) if number >= first or path in made]


def local_path(path: str, directory: str) -> str:
    """Return where below the directory of a try a file of the script's machine lies, by its absolute path there."""
    path = os.path.normpath(path)
    if directory:
        near = os.path.relpath(path, os.path.normpath(directory))
        if near != ".." and not near.startswith("../"):
            return near
    return _ELSEWHERE + path


def _below(path: str) -> list[str]:
    """Return the paths, from a directory, of all files and directories below it, each directory before what it has."""
    found = []
    for folder, folders, names in os.walk(path):
        near = os.path.relpath(folder, path)
        whole = [os.path.join(folder, name) for name in sorted(names)]
        files = [os.path.basename(one) for one in whole if os.path.isfile(one)]  # no pipes, no links to nothing
        found += [os.path.normpath(os.path.join(near, name)) for name in [*sorted(folders), *files]]
    return found


def _plain(path: str) -> str:
    return os.path.normpath(path) if path else path
