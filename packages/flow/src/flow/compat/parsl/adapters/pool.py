"""An executor of the standard library over a kernel, with Parsl's arguments."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import flow_core
from flow.compat.parsl.adapters.apps import PythonApp
from flow.compat.parsl.adapters.futures import AppFuture, as_in_parsl
from flow.compat.parsl.adapters.kernel import DataFlowKernel


class ParslPoolExecutor(flow_core.FlowPoolExecutor):
    """Runs functions as tasks; ends the kernel that it made itself when it is shut down."""

    def __init__(self, config: flow_core.Config | None = None, dfk: Any = None, executors: Any = "all") -> None:
        if (config is None) == (dfk is None):
            raise ValueError("give either config= or dfk=")
        super().__init__(config, kernel=dfk._kernel if isinstance(dfk, DataFlowKernel) else dfk, executors=executors)
        self._executors = executors
        self._known: set[Callable[..., Any]] = set()

    @property
    def app_count(self) -> int:
        """How many functions were given so far."""
        return len(self._known)

    def get_app(self, fn: Callable[..., Any]) -> PythonApp:
        """Return the app of a function."""
        self._known.add(fn)
        app: PythonApp = PythonApp(fn, self.kernel, False, self._executors)
        return app

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> AppFuture[Any]:
        """Run a function; return its future. Raises RuntimeError after the shutdown."""
        self._known.add(fn)
        return as_in_parsl(super().submit(fn, *args, **kwargs))

    def map(
        self,
        fn: Callable[..., Any],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[Any]:
        """Return the results of a function over arguments, in their order; the last two have no effect, as in Parsl."""
        return super().map(fn, *iterables, timeout=timeout)
