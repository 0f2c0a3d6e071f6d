"""What an app is, and what one call of it asks for: the data between the decorators and the kernel."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from flow_core.files import File
from flow_core.interfaces.call import DEFAULT_SPEC, TaskSpec
from flow_core.interfaces.memoizer import AppIdentity


class AppKind(Enum):
    """The kinds of apps."""

    PYTHON = "python"
    BASH = "bash"
    JOIN = "join"


StdStream = str | os.PathLike[str] | tuple[str | os.PathLike[str], str] | File
"""Where standard output or error goes: a path, a path and a mode of open(), or a File to be staged out."""


SNAPSHOTS = ("call", "whole", "once")
"""When what a function names is looked at: at each call, of large values samples; at each call, all; at the first call
of a run."""


@dataclass(frozen=True, slots=True, eq=False)
class AppDefinition:
    """One decorated function. The kernel gets this object, never the decorator.

    Attributes:
        func: The user's own function, undecorated.
        name: Its ``__name__``.
        kind: Python, bash or join.
        executors: Labels of the executors it may run on; None means all.
        cache: Whether its results are memoized.
        identity: What makes two of its calls the same.
        rerun_on_loss: Whether a try lost with its worker may be run again.
        takes: Those of ``inputs``, ``outputs``, ``stdout`` and ``stderr`` that the function has parameters for. A call
            may hold the others in its keywords too; they must not reach the function.
        snapshot: When its function is looked at; one of ``SNAPSHOTS``.
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


@dataclass(frozen=True, slots=True)
class CallOptions:
    """What one call asks of Flow, beside its arguments. Shared between calls that ask for nothing.

    Attributes:
        spec: The task's class (resources, priority, walltime, environment).
        outputs: Files the task makes, in order; the function gets local copies of them as its ``outputs``.
        stdout: Where standard output of a bash app goes; AUTO_LOGNAME is still itself.
        stderr: Where its standard error goes.
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
