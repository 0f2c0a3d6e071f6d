"""The directory that relative paths of a call are relative to: the current one of the script when it makes the call."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from flow_core.files import File
from flow_core.futures.app_future import AppFuture
from flow_core.futures.data_future import DataFuture
from flow_core.futures.derived import DerivedFuture
from flow_core.graph.resolver import ATOMS
from flow_core.graph.task import Common

if TYPE_CHECKING:
    from flow_core.graph.task import Task


_NAME_NONE = ATOMS | {AppFuture, DataFuture, DerivedFuture}
"""Types of what names no file that could be relative: files of futures are tied to the directories of their calls."""


def note_directory(task: Task) -> None:
    """Remember the current directory for a task that names files. On the thread of the call, after its edges.

    Asking for it is not free: it lets go of the interpreter, which another thread may then keep for a while.
    """
    if task.rare is not None and task.rare.directory:
        return
    kwargs = task.kwargs
    for value in task.args if type(task.args) is not Common else ():
        if type(value) is File:
            break
    else:
        if not kwargs or not _name_files(kwargs):
            return
    task.more().directory = current_directory()


def _name_files(kwargs: dict[str, object]) -> bool:
    for value in kwargs.values():
        if type(value) is File:
            return True
    inputs = kwargs.get("inputs")
    if inputs is None or type(inputs) is Common:
        return False
    return not (type(inputs) is list and _NAME_NONE.issuperset(map(type, inputs)))


def directory_of(task: Task) -> str:
    """Return the directory of the call; for one that seemed to name no files, the present one. Empty if it is gone."""
    rare = task.rare
    return (rare.directory if rare is not None else "") or current_directory()


def current_directory() -> str:
    """Return the current directory, empty if it is gone."""
    try:
        return os.getcwd()
    except OSError:  # it was removed
        return ""
