"""``FlowPoolExecutor``: a kernel as an executor of ``concurrent.futures``, for what takes one of those."""

from __future__ import annotations

import concurrent.futures
import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from types import MethodType
from typing import Any, TypeVar, cast

from flow_core.active import get_active
from flow_core.apps.app import AppBase
from flow_core.config import Config
from flow_core.errors import ConfigurationError, FlowError, KernelClosedError
from flow_core.futures.app_future import AppFuture
from flow_core.futures.lean import when_done
from flow_core.guard import one_line
from flow_core.kernel.kernel import DataFlowKernel
from flow_core.remote.chunks import call_each

T = TypeVar("T")
_CLOSED = "cannot schedule new futures after shutdown"  # the library's own words
_logger = logging.getLogger("flow.kernel")


class FlowPoolExecutor(concurrent.futures.Executor):
    """An executor of ``concurrent.futures`` whose calls are tasks of Flow. Any thread may use it.

    Its futures are Flow's: ``submit`` takes futures as arguments and waits for none, ``asyncio`` and
    ``concurrent.futures.wait`` take them as their own.

    Attributes:
        kernel: The kernel that runs the tasks; with neither ``config`` nor ``kernel`` the loaded one, as it is at the
            time of looking.
    """

    def __init__(
        self,
        config: Config | None = None,
        *,
        kernel: DataFlowKernel | None = None,
        executors: str | Sequence[str] = "all",
    ) -> None:
        """Take what runs the tasks.

        Args:
            config: A Config, for a kernel of the pool's own: it starts here, is not the loaded one, and ends with the
                pool.
            kernel: A kernel, which the pool leaves running. Without both it is the one that is loaded at each call.
            executors: ``"all"``, or labels of the executors that may run functions; apps have their own.

        Raises:
            ConfigurationError: both are given, one of them is something else, or the Config is wrong.
            ExecutorError: an executor of the Config could not be started.
        """
        if config is not None and kernel is not None:
            raise ConfigurationError("FlowPoolExecutor: give a config, for a kernel of its own, or a kernel, not both")
        if kernel is not None and not isinstance(kernel, DataFlowKernel):
            raise ConfigurationError(f"FlowPoolExecutor: kernel must be one that flow.load() returns, not {kernel!r}")
        self._labels = _checked_labels(executors)
        self._owns = config is not None
        self._kernel = DataFlowKernel(config) if config is not None else kernel
        self._lock = threading.Lock()
        self._unfinished: set[AppFuture[Any]] = set()
        self._closed = False
        self._ender: threading.Thread | None = None

    @property
    def kernel(self) -> DataFlowKernel:
        """The kernel that runs the tasks. Raises NoDataFlowKernelError: none is loaded."""
        return self._kernel if self._kernel is not None else cast(DataFlowKernel, get_active())

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> AppFuture[Any]:
        """Call a function, or an app, as a task; return its future at once.

        Raises:
            RuntimeError: the pool was shut down, or its kernel was cleaned up.
            FlowError: as a call of an app.
            TypeError: the arguments do not fit the function.
        """
        app = _app_of(fn)
        if app is not None:
            bound, first = app.of_kernel(self.kernel), (fn.__self__,) if isinstance(fn, MethodType) else ()
            return self._take(lambda: bound(*first, *args, **kwargs))
        if isinstance(fn, _Chunks):
            name = getattr(fn.func, "__name__", type(fn.func).__name__)
            return self._take(lambda: self.kernel.submit_function(call_each, (fn.func, *args), {}, self._labels, name))
        return self._take(lambda: self.kernel.submit_function(fn, args, kwargs, self._labels))

    def map(
        self, fn: Callable[..., T], *iterables: Iterable[Any], timeout: float | None = None, chunksize: int = 1
    ) -> Iterator[T]:
        """Call a function for each item, all at once; return an iterator over the results, in their order.

        ``flow.map`` takes the next item only when there is room, and gives futures.

        Args:
            fn: The function, or an app.
            iterables: Where its arguments come from, one for each; the shortest one ends it.
            timeout: Seconds from now until the last result is there; None waits for ever.
            chunksize: Calls of a function in one task: more than 1 is for calls that take less than a millisecond.

        Raises:
            ValueError: ``chunksize`` is less than 1, or more for an app, each call of which is a task.
            TimeoutError: from the iterator, which then cancels what has not begun, as it does where a call failed.
        """
        if chunksize < 1:
            raise ValueError(f"chunksize must be at least 1, not {chunksize!r}")
        if chunksize == 1:
            return super().map(fn, *iterables, timeout=timeout)
        if _app_of(fn) is not None:
            raise ValueError("chunksize is for functions: each call of an app is a task of its own")
        chunks = super().map(_Chunks(fn), _batches(zip(*iterables, strict=False), chunksize), timeout=timeout)
        return _results(chunks)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls; with a kernel of the pool's own, end it when they are done. Idempotent.

        Args:
            wait: Whether to return only when all calls are done and the pool's own kernel has ended.
            cancel_futures: Whether calls that have not begun are cancelled.

        Raises:
            CleanupIncomplete: as the kernel's ``cleanup``; with ``wait`` only.
            UnseenFailures: the same.
        """
        with self._lock:
            self._closed = True
        left = list(self._unfinished)
        if cancel_futures:
            for future in left:
                future.cancel()
        if wait:
            self._finish(left)
        elif self._owns:
            with self._lock:
                if self._ender is None:
                    # No daemon: a script that has nothing else to do waits for the calls, as with the library's pools.
                    self._ender = threading.Thread(target=self._end_later, args=(left,), name="flow-pool-end")
                    self._ender.start()

    def _finish(self, left: list[AppFuture[Any]]) -> None:
        for future in left:
            future._park(None)  # not by result(): that would count as a look at its failure
        if self._ender is not None and self._ender is not threading.current_thread():
            self._ender.join()
        if self._owns and self._kernel is not None:
            self._kernel.cleanup()

    def _end_later(self, left: list[AppFuture[Any]]) -> None:
        try:
            self._finish(left)
        except FlowError as error:
            _logger.error("The pool's run ended, but: %s", one_line(error))

    def _is_closed(self) -> bool:
        return self._closed

    def _take(self, call: Callable[[], AppFuture[Any]]) -> AppFuture[Any]:
        if self._is_closed():
            raise RuntimeError(_CLOSED)
        try:
            future = call()
        except KernelClosedError as error:
            raise RuntimeError(f"no more calls can be made: {error}") from error
        self._unfinished.add(future)
        when_done(future, self._unfinished.discard)
        # It may have been shut down while this call waited for its place: nobody would wait for the task.
        if self._is_closed() and future.cancel():
            raise RuntimeError(_CLOSED)
        return future


class _Chunks:
    """A function of which several calls make one task."""

    def __init__(self, func: Callable[..., Any]) -> None:
        self.func = func

    def __call__(self, calls: list[tuple[Any, ...]]) -> list[Any]:
        """Return their results."""
        return call_each(self.func, calls)


def _batches(calls: Iterator[tuple[Any, ...]], size: int) -> Iterator[list[tuple[Any, ...]]]:
    while batch := list(islice(calls, size)):
        yield batch


def _results(chunks: Iterator[list[Any]]) -> Iterator[Any]:
    try:
        for chunk in chunks:
            yield from chunk
    finally:
        chunks.close()  # type: ignore[attr-defined]  # a generator of the library's, which cancels what is left


def _app_of(fn: object) -> AppBase[..., Any] | None:
    """Return the app that a callable is or belongs to, as a method; None for plain functions."""
    found = fn.__func__ if isinstance(fn, MethodType) else fn
    return found if isinstance(found, AppBase) else None


def _checked_labels(executors: object) -> tuple[str, ...] | None:
    if executors == "all":
        return None
    labels = (executors,) if isinstance(executors, str) else executors
    if not isinstance(labels, Sequence) or not labels or not all(isinstance(one, str) and one for one in labels):
        raise ConfigurationError(f"FlowPoolExecutor: executors must be 'all' or a list of labels, not {executors!r}")
    return None if "all" in labels else tuple(labels)
