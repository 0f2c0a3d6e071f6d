"""App definitions and call options: the data between the decorators and the kernel."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from signal import SIGTERM

from flow_core.files import File
from flow_core.interfaces.call import DEFAULT_SPEC, TaskSpec
from flow_core.interfaces.memoizer import AppIdentity


class AppKind(Enum):
    """The kinds of apps, by what their function returns: a value, a command line, or futures."""

    PYTHON = "python"
    BASH = "bash"
    JOIN = "join"


PYTHON, JOIN = AppKind.PYTHON, AppKind.JOIN
"""The kinds that each call is compared with, by names of their own: see ``flow_core.graph.states``."""

StdStream = str | os.PathLike[str] | tuple[str | os.PathLike[str], str] | File
"""Target of standard output or error: a path, a path and a mode of open(), or a File to be staged out."""


SNAPSHOTS = ("call", "whole", "once")
"""When what a function names is looked at: at each call, of large values samples; at each call, all; at the first call
of a run."""

CACHE_FILES = ("contents", "names")
"""Property of files that makes a cached call another call: their contents, or their names alone."""

CACHE_GLOBALS = ("all", "named")
"""Globals that make a cached call another call: all that its code may use, so that no result is remembered where it
takes some by names which show only as it runs; or those that the code names."""

GROWING = ("memory", "walltime")
"""What of a task can grow before another try: that which ran out."""


@dataclass(frozen=True, slots=True, eq=False)
class AppDefinition:
    """One decorated function. The kernel gets this object, never the decorator.

    Attributes:
        func: The user's own function, undecorated.
        name: Its ``__name__``.
        kind: Python, bash or join.
        executors: Labels of the executors it may run on; None means all.
        cache: Whether its results are memoized.
        identity: Identity of the app in the keys of its calls.
        rerun_on_loss: Whether a try lost with its worker may be run again.
        takes: Those of ``inputs``, ``outputs``, ``stdout`` and ``stderr`` that the function has parameters for. A call
            may hold the others in its keywords too; they must not reach the function.
        snapshot: When its function is looked at; one of ``SNAPSHOTS``.
        cache_files: What of files counts for its cache; one of ``CACHE_FILES``.
        cache_globals: Which globals count for its cache; one of ``CACHE_GLOBALS``.
        warn_signal: Number of the signal by which the command of a bash app is told of the end of its block.
        growth: Factors by which what ran out grows before another try, by the names of ``GROWING``.
        gather: Of an app whose function runs on the ranks of its task: whether the result is a list by rank, not the
            value of rank 0. None: the function runs once.
    """

    func: Callable[..., object]
    name: str
    kind: AppKind
    executors: tuple[str, ...] | None
    cache: bool
    identity: AppIdentity
    rerun_on_loss: bool = True
    takes: frozenset[str] = frozenset()
    snapshot: str = "call"
    cache_files: str = "contents"
    cache_globals: str = "all"
    warn_signal: int = SIGTERM
    growth: tuple[tuple[str, float], ...] = ()
    gather: bool | None = None


@dataclass(frozen=True, slots=True)
class CallOptions:
    """Options of one call, beside its arguments. Shared between calls that ask for nothing.

    Attributes:
        spec: The task's class (resources, priority, walltime, environment).
        outputs: Files the task makes, in order; the function gets local copies of them as its ``outputs``.
        stdout: Target of standard output of a bash app; AUTO_LOGNAME is still itself.
        stderr: Target of its standard error.
        label: Free text for log names and pages.
        executors: Labels that override the app's own.
    """

    spec: TaskSpec = DEFAULT_SPEC
    outputs: tuple[File, ...] = ()
    stdout: StdStream | None = None
    stderr: StdStream | None = None
    label: str = ""
    executors: tuple[str, ...] | None = None


NO_OPTIONS = CallOptions()
