"""Loading of kernels: ``load``, ``clear`` and ``dfk``, and the one active kernel of the process."""

from __future__ import annotations

import builtins
import sys
import threading
from typing import TYPE_CHECKING, cast

from flow_core.active import active_or_none, get_active, set_active
from flow_core.config import Config, checked_config
from flow_core.errors import ConfigurationError
from flow_core.fork_locks import renewed_after_fork
from flow_core.kernel.kernel import DataFlowKernel

if TYPE_CHECKING:
    from types import TracebackType

_ENDED = "was cleaned up; load a Config again with flow.load()"
_lock = renewed_after_fork(threading.Lock())
_slot = renewed_after_fork(threading.Lock())  # of its own, for the active kernel: a load holds _lock for long


class LoadedKernel(DataFlowKernel):
    """The kernel made by ``load``: it is the active one until it is cleaned up, by whatever way."""

    def cleanup(self, timeout_s: float = 30.0) -> None:
        """End the run, as ``DataFlowKernel.cleanup``, and be the active kernel no more."""
        try:
            super().cleanup(timeout_s)
        finally:
            self._no_longer_active()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            super().__exit__(kind, error, trace)
        finally:
            # One that goes on, with exit_mode="skip", stays the one that apps use.
            if not self.is_open:
                self._no_longer_active()

    def _no_longer_active(self) -> None:
        with _slot:
            if active_or_none() is self:
                set_active(None, f"no Config is loaded: the run in {self.run_dir} {_ENDED}")


def load(config: Config | None = None, *, replace: bool = False) -> DataFlowKernel:
    """Start a kernel from a Config (``Config()`` if None) and make it the active one, which apps use.

    As ``with flow.load(config):`` it is cleaned up and cleared at the end of the block. In a notebook, or another
    session of IPython, a Config that is equal to the one that is loaded is that one: the cell can be run again.

    Args:
        config: The Config.
        replace: Whether to end the run of a Config that is loaded, as ``clear`` does, and to begin a new one. By
            default it is refused.

    Raises:
        ConfigurationError: the Config is wrong, or another kernel is loaded.
        ExecutorError: an executor could not be started.
    """
    if replace:
        clear()
    with _lock:
        active = active_or_none()
        if isinstance(active, DataFlowKernel) and active.is_open:
            # By its expression: what differs in no way that repr() shows, as functions of one name, is the same.
            # Of copies, as the kernel has one: a list of sinks is a tuple there.
            given = Config() if config is None else checked_config(config).copy()
            if _in_ipython() and repr(given) == repr(active.config):
                sys.stderr.write(
                    f"flow: this Config is loaded already, and its run goes on in {active.run_dir}; "
                    "flow.load(..., replace=True) begins a new one\n"
                )
                return active
            raise ConfigurationError(
                f"a Config is loaded already (run directory {active.run_dir}): call flow.clear() first to load "
                "another, or end its run by flow.load(..., replace=True)"
            )
        kernel = LoadedKernel(config)
        with _slot:
            set_active(kernel)
        return kernel


def _in_ipython() -> bool:
    return hasattr(builtins, "__IPYTHON__")


def clear() -> None:
    """Clean up the active kernel and forget it, so that another Config can be loaded. Does nothing without one."""
    with _lock, _slot:
        kernel = active_or_none()
        set_active(None)
    if isinstance(kernel, DataFlowKernel):
        # Outside the lock: cleaning up may take half a minute, and another thread may load a Config meanwhile.
        kernel.cleanup()


def dfk() -> DataFlowKernel:
    """Return the active kernel. Raises NoDataFlowKernelError if no Config is loaded."""
    return cast(DataFlowKernel, get_active())


class DataFlowKernelLoader:
    """The functions of this module under the name that older scripts use; never instantiated."""

    load = staticmethod(load)
    clear = staticmethod(clear)
    dfk = staticmethod(dfk)

    @staticmethod
    def wait_for_current_tasks() -> None:
        """Wait until all tasks submitted so far to the active kernel have ended."""
        dfk().wait_for_current_tasks()
