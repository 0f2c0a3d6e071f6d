"""Kernels with Parsl's attributes, and the one that is loaded."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Self

import flow_core
from flow.compat.parsl.adapters.apps import JoinApp, PythonApp
from flow.compat.parsl.adapters.configuration import Config
from flow.compat.parsl.adapters.futures import AppFuture
from flow.compat.parsl.adapters.own_memoizer import OwnMemoizer
from flow.compat.parsl.adapters.tasks import States, TaskRecord, record_of, state_named
from flow_core.active import active_or_none, set_active
from flow_core.errors import NoDataFlowKernelError
from flow_core.kernel.kernel import DataFlowKernel as FlowKernel
from flow_core.kernel.loaded import load as flow_load

_TEXT_LOGS = {"text": "parsl.log", "json": "parsl.jsonlog"}


class DataFlowKernel:
    """A kernel of Flow with Parsl's attributes; whatever is not named here is Flow's own."""

    def __init__(self, config: flow_core.Config | None = None, *, _made: FlowKernel | None = None) -> None:
        self._kernel = FlowKernel(_ready(config)) if _made is None else _made
        self.cleanup_called = False
        self._lock = threading.Lock()
        memoizer = self._kernel.memoizer
        if isinstance(memoizer, OwnMemoizer):
            memoizer.own.start(run_dir=self.run_dir, config_run_dir=str(self._kernel.config.run_dir))
        log = self._kernel.run_dir / "flow.log"
        if log.exists():
            name = _TEXT_LOGS.get(self._kernel.config.log_format, "parsl.log")
            (self._kernel.run_dir / name).symlink_to(log.name)

    def __getattr__(self, name: str) -> Any:
        if name == "_kernel":
            raise AttributeError(name)
        return getattr(self._kernel, name)

    def __repr__(self) -> str:
        return f"<DataFlowKernel of {self.run_dir}>"

    @property
    def config(self) -> flow_core.Config:
        """The Config that it was made with."""
        return self._kernel.config

    @property
    def run_dir(self) -> str:
        """The run's directory, as text."""
        return str(self._kernel.run_dir)

    @property
    def monitoring(self) -> object:
        """The hub of the Config."""
        return self._kernel.config.monitoring

    @property
    def tasks(self) -> dict[int, TaskRecord]:
        """The records of tasks that have not ended, by id."""
        return {task.tid: record_of(task, self) for task in self._kernel._unfinished()}

    @property
    def task_count(self) -> int:
        """How many tasks there were so far."""
        return self._kernel.task_count

    @property
    def task_state_counts(self) -> dict[States, int]:
        """How many tasks are in which state."""
        counts = dict.fromkeys(States, 0)
        told = self._kernel.summary()
        counts[States.exec_done], counts[States.memo_done] = told.completed, told.memoized
        counts[States.failed], counts[States.dep_fail] = told.failed + told.cancelled, told.dep_failed
        for task in self._kernel._unfinished():
            counts[state_named(task.state.name)] += 1
        return counts

    def submit(
        self,
        func: Callable[..., Any],
        app_args: Sequence[Any] = (),
        executors: str | Sequence[str] = "all",
        cache: bool = False,
        ignore_for_cache: Sequence[str] | None = None,
        app_kwargs: Mapping[str, Any] | None = None,
        join: bool = False,
    ) -> AppFuture[Any]:
        """Run a function as a task."""
        kind = JoinApp if join else PythonApp
        app = kind(func, self, cache, executors, ignore_for_cache)
        return app(*app_args, **(app_kwargs or {}))

    def add_executors(self, executors: Sequence[Any]) -> None:
        """Take more executors. Raises AttributeError where the kernel of this release cannot."""
        self._kernel.add_executors(executors)

    def checkpoint(self, tasks: Sequence[Any] | None = None) -> str | None:
        """Write what is not in the checkpoint yet; return its directory."""
        found = self._kernel.checkpoint(tasks)
        return None if found is None else str(found)

    def cleanup(self) -> None:
        """End the run; then it is loaded no more."""
        with self._lock:
            self.cleanup_called = True
        self._kernel.cleanup()
        if active_or_none() is self._kernel:
            set_active(None)
        DataFlowKernelLoader._forget(self)

    def atexit_cleanup(self) -> None:
        """End the run unless it has ended."""
        if not self.cleanup_called:
            self.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_error: object) -> None:
        mode = self._kernel.config.exit_mode
        if mode == "skip" and kind is None:
            return
        if mode == "wait" and kind is None:
            self._kernel.wait_for_current_tasks()
        self.cleanup()


def _ready(config: flow_core.Config | None) -> flow_core.Config | None:
    return config.with_checkpoints() if isinstance(config, Config) else config


class DataFlowKernelLoader:
    """The kernel that is loaded."""

    _dfk: ClassVar[DataFlowKernel | None] = None
    _lock: ClassVar[threading.Lock] = threading.Lock()

    @classmethod
    def load(cls, config: flow_core.Config | None = None) -> DataFlowKernel:
        """Start a kernel and make it the loaded one. Raises ConfigurationError if there is one."""
        made = flow_load(_ready(config))
        with cls._lock:
            cls._dfk = DataFlowKernel(_made=made)
            return cls._dfk

    @classmethod
    def clear(cls) -> None:
        """Forget the loaded kernel, which goes on until its ``cleanup``, as in Parsl."""
        with cls._lock:
            kernel, cls._dfk = cls._dfk, None
        if kernel is not None and active_or_none() is kernel._kernel:
            set_active(None)

    @classmethod
    def dfk(cls) -> DataFlowKernel:
        """Return the loaded kernel. Raises NoDataFlowKernelError."""
        with cls._lock:
            active = active_or_none()
            if isinstance(active, FlowKernel) and (cls._dfk is None or cls._dfk._kernel is not active):
                cls._dfk = DataFlowKernel(_made=active)  # loaded in Flow's own terms
            if cls._dfk is None:
                raise NoDataFlowKernelError("no Config is loaded: call parsl.load(config) first")
            return cls._dfk

    @classmethod
    def wait_for_current_tasks(cls) -> None:
        """Wait until all tasks that there are have ended."""
        cls.dfk()._kernel.wait_for_current_tasks()

    @classmethod
    def _forget(cls, kernel: DataFlowKernel) -> None:
        with cls._lock:
            if cls._dfk is kernel:
                cls._dfk = None


load = DataFlowKernelLoader.load
clear = DataFlowKernelLoader.clear
dfk = DataFlowKernelLoader.dfk
wait_for_current_tasks = DataFlowKernelLoader.wait_for_current_tasks
