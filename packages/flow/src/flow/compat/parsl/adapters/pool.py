"""An executor of the standard library over a kernel."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import flow_core
from flow.compat.parsl.adapters.apps import PythonApp
from flow.compat.parsl.adapters.futures import AppFuture
from flow.compat.parsl.adapters.kernel import DataFlowKernel


class ParslPoolExecutor(concurrent.futures.Executor):
    """Runs functions as tasks; ends the kernel that it made itself when it is shut down."""

    def __init__(self, config: flow_core.Config | None = None, dfk: Any = None, executors: Any = "all") -> None:
        if (config is None) == (dfk is None):
            raise ValueError("give either config= or dfk=")
        self._owned = config is not None
        self._dfk: Any = DataFlowKernel(config) if dfk is None else dfk
        self._executors = executors
        self._apps: dict[Callable[..., Any], PythonApp] = {}
        self._futures: set[AppFuture[Any]] = set()
        self._shut = False

    @property
    def app_count(self) -> int:
        """How many functions were given so far."""
        return len(self._apps)

    def get_app(self, fn: Callable[..., Any]) -> PythonApp:
        """Return the app of a function."""
        if fn not in self._apps:
            self._apps[fn] = PythonApp(fn, self._dfk, False, self._executors)
        return self._apps[fn]

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> AppFuture[Any]:
        """Run a function; return its future. Raises RuntimeError after the shutdown."""
        if self._shut:
            raise RuntimeError("cannot schedule new futures after shutdown")
        future: AppFuture[Any] = self.get_app(fn)(*args, **kwargs)
        self._futures.add(future)
        future.add_done_callback(self._futures.discard)
        return future

    def map(
        self, fn: Callable[..., Any], *iterables: Iterable[Any], timeout: float | None = None, chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[Any]:  # fmt: skip
        """Return the results of a function over arguments, in their order; chunks have no effect."""
        return super().map(fn, *iterables, timeout=timeout, chunksize=chunksize)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more functions, wait for those that run, and end the kernel that was made here."""
        self._shut = True
        if cancel_futures:
            for future in list(self._futures):
                future.cancel()
        if wait:
            concurrent.futures.wait(list(self._futures))
        if self._owned and wait:
            self._dfk.cleanup()
