"""Directory of a call, to which its relative paths are relative: that of the script when it makes the call."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flow_core.apps.definition import AppKind
from flow_core.files import File
from flow_core.folders import current_directory
from flow_core.futures.app_future import AppFuture
from flow_core.futures.data_future import DataFuture
from flow_core.futures.derived import DerivedFuture
from flow_core.graph.resolver import ATOMS
from flow_core.graph.task import SharedArguments

if TYPE_CHECKING:
    from flow_core.graph.task import Task


_NAME_NONE = ATOMS | {AppFuture, DataFuture, DerivedFuture}
"""Types of what names no file that could be relative: files of futures are tied to the directories of their calls."""


def note_directory(task: Task) -> None:
    """Remember the current directory for a task that names files. On the thread of the call, after its edges.

    Asking for it is not free: it lets go of the interpreter, which another thread may then keep for a while. So nobody
    asks for Python apps whose files are the same in any directory.
    """
    # ``holds`` is set where the call found nothing but plain data and futures: then no file is named.
    if task.holds or (task.details is not None and task.details.directory):
        return
    kwargs = task.kwargs
    python = task.app.kind is AppKind.PYTHON
    for value in task.args if type(task.args) is not SharedArguments else ():
        if type(value) is File and not (python and not value.is_loose):
            break
    else:
        if not kwargs or not _name_files(kwargs, python):
            return
    task.more().directory = current_directory()


def _name_files(kwargs: dict[str, object], python: bool) -> bool:
    for value in kwargs.values():
        if type(value) is File and not (python and not value.is_loose):
            return True
    inputs = kwargs.get("inputs")
    if inputs is None or type(inputs) is SharedArguments:
        return False
    if type(inputs) is not list:
        return True
    if _NAME_NONE.issuperset(map(type, inputs)):
        return False
    return not python or any(one.is_loose if type(one) is File else type(one) not in _NAME_NONE for one in inputs)


def directory_of(task: Task) -> str:
    """Return the directory of the call; for one that seemed to name no files, the present one. Empty if it is gone."""
    details = task.details
    return (details.directory if details is not None else "") or current_directory()
