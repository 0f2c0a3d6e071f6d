"""The directory that relative paths of a call are relative to: the current one of the script when it makes the call."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from flow_core.apps.definition import NO_OPTIONS
from flow_core.files import File

if TYPE_CHECKING:
    from flow_core.graph.task import Task


def note_directory(task: Task) -> None:
    """Remember the current directory for a task that names files. On the thread of the call."""
    options, kwargs = task.options, task.kwargs
    named = options is not NO_OPTIONS and (options.outputs or options.stdout is not None or options.stderr is not None)
    if not named:
        for value in task.args:
            if type(value) is File:
                named = True
                break
    if named or (kwargs and (kwargs.get("inputs") or File in map(type, kwargs.values()))):
        task.more().directory = _current()


def directory_of(task: Task) -> str:
    """Return the directory of the call; for one that seemed to name no files, the present one. Empty if it is gone."""
    rare = task.rare
    return (rare.directory if rare is not None else "") or _current()


def _current() -> str:
    try:
        return os.getcwd()
    except OSError:  # it was removed
        return ""
