"""Steps around a task that makes files: their directories before it, a look for the files after it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

from flow_core.errors import AppException, MissingOutputs
from flow_core.interfaces.call import NodeContext


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
                os.makedirs(os.path.join(self.directory, path), exist_ok=True)
            except OSError as error:
                raise AppException(
                    f"the directory {path} for an output file cannot be made on {where.node or 'this machine'}: "
                    f"{error.strerror or error}"
                ) from error
        return inner()


@dataclass(frozen=True, slots=True)
class CheckOutputs:
    """Fails the task if files it declared do not exist after it.

    Attributes:
        app: Name of the app.
        paths: The files or directories that must exist.
        directory: What relative paths are relative to; empty for the directory that the task runs in.
    """

    app: str
    paths: tuple[str, ...]
    directory: str = ""

    def run(self, inner: Callable[[], object], where: NodeContext) -> object:
        """Run ``inner`` and look. Raises MissingOutputs naming what is not there."""
        result = inner()
        missing = [path for path in self.paths if not os.path.exists(os.path.join(self.directory, path))]
        if missing:
            raise MissingOutputs(
                f"app {self.app!r} ended without making {_listed(missing)} {self._where()}"
                f"{f' on {where.node}' if where.node else ''})",
                missing,
            )
        return result

    def _where(self) -> str:
        here = _here()
        if not self.directory or self.directory == here:
            return f"(working directory {here}"
        return f"in {self.directory}, where the app was called (it ran in {here}"


def _here() -> str:
    try:
        return os.getcwd()
    except OSError:
        return "which was removed"


def _listed(paths: list[str]) -> str:
    shown = ", ".join(paths[:5])
    return shown if len(paths) <= 5 else f"{shown} and {len(paths) - 5} more of its outputs"
