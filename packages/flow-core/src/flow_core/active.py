"""The slot that holds the active kernel, so that apps reach it without importing it.

The one piece of process-global state of Flow. ``flow_core.kernel.loaded`` fills and empties it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Protocol

from flow_core.errors import NoDataFlowKernelError

if TYPE_CHECKING:
    from concurrent.futures import Future


class Submitter(Protocol):
    """What an app needs of a kernel."""

    @property
    def submit_call(self) -> Callable[..., Future[Any]]:
        """``submit_call(definition, args, kwargs, options)``: take one call of an app and return its AppFuture.

        Any thread; blocks only for back-pressure.
        """
        ...


_active: Submitter | None = None

current_join: ContextVar[int | None] = ContextVar("flow_current_join", default=None)
"""Id of the join task whose body runs in this context: the parent of tasks made there."""


def set_active(kernel: Submitter | None) -> None:
    """Make a kernel the active one, or none."""
    global _active
    _active = kernel


def active_or_none() -> Submitter | None:
    """Return the active kernel, or None."""
    return _active


def get_active() -> Submitter:
    """Return the active kernel.

    Raises:
        NoDataFlowKernelError: no Config is loaded.
    """
    if _active is None:
        raise NoDataFlowKernelError(
            "no Config is loaded, so there is nothing to run apps: call flow.load() (local threads) or "
            "flow.load(config) first, or give the app its own kernel with data_flow_kernel="
        )
    return _active
