"""Steps around a task that makes files: their directories before it, a look for the files after it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flow_core.errors import AppException, MissingOutputs
from flow_core.folders import current_directory
from flow_core.interfaces.call import NodeContext
from flow_core.remote.links import refuse_foreign_link

if TYPE_CHECKING:
    from flow_core.remote.replaced_outputs import OutputPlace


@dataclass(frozen=True, slots=True)
class MakeDirectories:
    """Makes directories before the function runs.

    Attributes:
        paths: The directories; existing ones are left alone.
        directory: What relative paths are relative to; empty for the directory that the task runs in.
    """

    paths: tuple[str, ...]
    directory: str = ""

    def run(self, inner: Callable[[], object], where: NodeContext) -> object:
        """Make the directories and run ``inner``. Raises AppException naming a directory that cannot be made."""
        for path in self.paths:
            try:
                # exist_ok: other tasks make the same directories at the same time.
                os.makedirs(os.path.join(self.directory, path), exist_ok=True)
            except OSError as error:
                raise AppException(
                    f"the directory {path} for an output file cannot be made on {where.node or 'this machine'}: "
                    f"{error.strerror or error}"
                ) from error
        return inner()


@dataclass(frozen=True, slots=True)
class CheckOutputs:
    """Fails the task if its try did not make the files that the task declared.

    What lies at the places of outputs before the try is moved aside; it is put back if the task fails, and removed if
    it succeeds. Directories stay, and what the task declared to update.

    Attributes:
        app: Name of the app.
        paths: The files or directories that must be there after the try.
        directory: What relative paths are relative to; empty for the directory that the task runs in.
        replaced: Those of the paths of which this try must have made what is there.
        updated: Those of the paths that it may find, and change.
        task: Name of the task, that no other task of any run has.
        number: Of this try of it, from 1.
        stays: Whether all tries of it are in one process.
    """

    app: str
    paths: tuple[str, ...]
    directory: str = ""
    replaced: tuple[str, ...] = ()
    updated: tuple[str, ...] = ()
    task: str = ""
    number: int = 1
    stays: bool = False

    def run(self, inner: Callable[[], object], where: NodeContext) -> object:
        """Run ``inner`` and look.

        Raises:
            MissingOutputs: something was not made; the message names it.
            AppException: at the place of an output is a link that another user has made.
        """
        # Imported here: workers whose tasks make no files do without.
        from flow_core.remote.replaced_outputs import clear_for, unshared

        # Before anything is moved: what another user has put there must neither be moved nor written to.
        there = {path: refuse_foreign_link(self._at(path), "an output") for path in self.paths}
        # A file that is written to in place may be a hard link of one in the cache, which must not change.
        for path in self.updated:
            unshared(self._at(path))
        places: dict[str, OutputPlace] = {}
        try:
            for path in self.replaced:
                at = self._at(path)
                places[path] = clear_for(at, self.task, self.number, there[path], stays=self.stays)
            result = inner()
            missing = [path for path in self.paths if not self._made(path, places.get(path))]
            if missing:
                raise self._missing(missing, [path for path in missing if _was_there(places.get(path))], where)
        # Whatever is raised in the try, by a kill as well, what lay there before must be in its place afterwards.
        except BaseException as error:
            for place in places.values():
                place.failed()
            if isinstance(error, FileNotFoundError):
                self._explain(error, places)
            raise
        for place in places.values():
            place.succeeded()
        return result

    def _at(self, path: str) -> str:
        return os.path.join(self.directory, path)

    def _made(self, path: str, place: OutputPlace | None) -> bool:
        return os.path.exists(self._at(path)) if place is None else place.made()

    def _missing(self, missing: list[str], old: list[str], where: NodeContext) -> MissingOutputs:
        told = ""
        if old:
            told = (
                f". An older {_listed(old)} lies there: what was there before a task is no output of it. Declare "
                f"{'it' if len(old) == 1 else 'them'} as File({old[0]!r}, update=True) if the app adds to what it "
                "finds, or may leave it as it is"
            )
        return MissingOutputs(
            f"app {self.app!r} ended without making {_listed(missing)} {self._where()}"
            f"{f' on {where.node}' if where.node else ''}){told}",
            missing,
        )

    def _explain(self, error: FileNotFoundError, places: dict[str, OutputPlace]) -> None:
        """Say of a file that the app did not find that it was moved aside."""
        for path, place in places.items():
            if place.moved and error.filename is not None and _same_place(error.filename, place.path):
                error.add_note(
                    f"{path} was there before the try, and was moved aside for it and put back after it, since it is "
                    f"an output of app {self.app!r}. Declare it as File({path!r}, update=True), or among the inputs "
                    "too, if the app reads it or adds to it."
                )

    def _where(self) -> str:
        here = current_directory("which was removed")
        if not self.directory or self.directory == here:
            return f"(working directory {here}"
        return f"in {self.directory}, where the app was called (it ran in {here}"


def _same_place(one: str, other: str) -> bool:
    return os.path.realpath(one) == os.path.realpath(other)


def _was_there(place: OutputPlace | None) -> bool:
    return place is not None and (place.moved or place.before is not None)


def _listed(paths: list[str]) -> str:
    shown = ", ".join(paths[:5])
    return shown if len(paths) <= 5 else f"{shown} and {len(paths) - 5} more of its outputs"
