"""Active kernel of the process: a slot from which apps take it without importing it.

The one piece of process-global state of Flow. ``flow_core.kernel.loaded`` fills and empties it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Protocol

from flow_core.errors import KernelClosedError, NoDataFlowKernelError
from flow_core.remote.run import in_worker

if TYPE_CHECKING:
    from concurrent.futures import Future


class Submitter(Protocol):
    """The part of a kernel that an app uses."""

    @property
    def submit_call(self) -> Callable[..., Future[Any]]:
        """``submit_call(definition, args, kwargs, options)``: take one call of an app and return its AppFuture.

        Any thread; blocks only for back-pressure.
        """
        ...


# Not guarded by a lock: ``loaded`` sets it under its own, and a reader needs one value only.
kernel: Submitter | None = None
"""The active kernel, if there is one. To be read only: apps look here at each call."""

_ended = ""  # why there is none any more, where one was cleaned up by itself

current_join: ContextVar[int | None] = ContextVar("flow_current_join", default=None)
"""Id of the join task whose body runs in this context: the parent of tasks made there."""


CALLED_IN_TASK = (
    "an app was called inside a task that runs in a worker process: the kernel is in the script, so no task can be "
    "made here. Make the app that calls it a @join_app, whose body runs in the script, and return the future; or call "
    "the plain function, which is the app's __wrapped__. Do not load a Config here: it would start executors "
    "of its own"
)


def set_active(active: Submitter | None, ended: str = "") -> None:
    """Make a kernel the active one, or none; ``ended`` says what became of the one of before."""
    global kernel, _ended
    kernel, _ended = active, ended


def active_or_none() -> Submitter | None:
    """Return the active kernel, or None."""
    return kernel


def get_active() -> Submitter:
    """Return the active kernel.

    Raises:
        NoDataFlowKernelError: no Config is loaded, or this is a task in a worker process, where none can be.
        KernelClosedError: the same, since the one that was loaded was cleaned up.
    """
    if kernel is None:
        # "Call load()" would be wrong advice there: each worker would start executors of its own.
        if in_worker():
            raise NoDataFlowKernelError(CALLED_IN_TASK)
        if _ended:
            raise KernelClosedError(_ended)
        raise NoDataFlowKernelError(
            "no Config is loaded, so there is nothing to run apps: call flow.load() (local threads) or "
            "flow.load(config) first, or give the app its own kernel with data_flow_kernel="
        )
    return kernel
