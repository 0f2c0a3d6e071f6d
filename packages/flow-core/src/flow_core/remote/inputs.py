"""A step before a task that reads local files: whether they are there."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass

from flow_core.errors import MissingInputs
from flow_core.folders import current_directory
from flow_core.interfaces.call import NodeContext


@dataclass(frozen=True, slots=True)
class CheckInputs:
    """Fails the task, before its function runs, if files that it was given as inputs are not there.

    Attributes:
        task_id: The task.
        app: Name of the app.
        paths: The files or directories.
        directory: What relative paths are relative to; empty for the directory that the task runs in.
    """

    task_id: int
    app: str
    paths: tuple[str, ...]
    directory: str = ""

    def run(self, inner: Callable[[], object], where: NodeContext) -> object:
        """Look, and run ``inner``. Raises MissingInputs naming what is not there, and why."""
        # On the node and not in the script: file systems of nodes may be others.
        reasons = {path: _wrong(os.path.join(self.directory, path)) for path in self.paths}
        missing = [path for path, reason in reasons.items() if reason]
        if missing:
            said = "; ".join(f"{path} {reasons[path]}" for path in missing[:5])
            more = f" (and {len(missing) - 5} more)" if len(missing) > 5 else ""
            raise MissingInputs(
                f"task {self.task_id} ({self.app}) was not started{f' on {where.node}' if where.node else ''}, "
                f"since it lacks inputs: {said}{more}",
                missing,
            )
        return inner()


def _wrong(path: str) -> str:
    """Return why a path cannot be opened, or nothing."""
    try:
        os.stat(path)
    # Asked once more before the task is failed, since nothing else would try again.
    except FileNotFoundError:
        return "" if _there_after_all(path) else _absent(path)
    except OSError as error:
        if error.errno == errno.ELOOP:
            return "is a link that leads in a circle"
        return f"cannot be used: {error.strerror or error}"
    return ""


def _there_after_all(path: str) -> bool:
    """Look again, with a new view of the directory: one of a network file system may be some seconds old."""
    try:
        # Opening a directory has a network file system ask its server again.
        with os.scandir(os.path.dirname(path) or "."):
            pass
        os.stat(path)
    except OSError:
        return False
    return True


def _absent(path: str) -> str:
    try:
        return f"is a link to {os.readlink(path)}, which does not exist"
    except OSError:
        if os.path.isabs(path):
            return "does not exist"
        return f"does not exist in {current_directory('the working directory, which was removed')}"
