"""Thread executor: runs tasks in a pool of threads of this process, and needs nothing else."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Annotated, Final

from flow_core.errors import ConfigurationError, ExecutorClosed
from flow_core.executors.thread_pool import Pool, in_worker as in_worker
from flow_core.interfaces.call import Call, TryKey
from flow_core.interfaces.context import RunContext
from flow_core.interfaces.executor import Executor, ShutdownReport
from flow_core.interfaces.scaling import Load
from flow_core.interfaces.staging import Staging
from flow_core.interfaces.task_fields import HONOURED_BY_ALL
from flow_core.interfaces.waiting import Cause
from flow_core.option_names import known_options
from flow_core.option_records import about, documented, options_of
from flow_core.representation import expression


def _number(value: object) -> str:
    well = isinstance(value, int) and not isinstance(value, bool) and value >= 1
    return "" if well else "must be a whole number of at least 1"


def _label(value: object) -> str:
    return "" if isinstance(value, str) and value else "must be text"


def _text(value: object) -> str:
    return "" if isinstance(value, str) else "must be text"


def _directory(value: object) -> str:
    return "" if value is None or isinstance(value, (str, os.PathLike)) else "must be the path of a directory, or None"


@documented
class ThreadPoolExecutor(Executor):
    """Runs tasks in threads of this process. Suits tasks of any length that wait or that release the GIL.

    Walltime and ``cancel(kill=True)`` raise an exception inside the task. A task in code that takes none (code in C, a
    call that blocks) cannot be stopped: its future fails in time all the same, its thread is left to it, and another
    one works in its place. A task that waits for another task gives its place up while it waits. Each task occupies one
    thread, and those that ask for more (cores, memory, GPUs, a priority ...) are refused.

    Raises:
        ConfigurationError: an option has an impossible value.
    """

    kills = True
    in_process = True
    honours = HONOURED_BY_ALL | {"running_time_min", "container"}  # threads are never taken away, so any time is left

    @known_options
    def __init__(
        self,
        label: Annotated[str, about("Name of the executor, unique in a Config.", _label)] = "threads",
        max_threads: Annotated[
            int, about("Tasks that run at once. Threads are started when they are first needed.", _number)
        ] = 2,
        thread_name_prefix: Annotated[str, about("Beginning of the threads' names; the label if empty.", _text)] = "",
        storage_access: Annotated[Sequence[Staging] | None, about("Staging methods that replace the defaults.")] = None,
        working_dir: Annotated[
            str | None, about("Directory for staged files; None means the current one.", _directory)
        ] = None,
        managed: Annotated[bool, about("Whether the kernel shuts it down.")] = True,
    ) -> None:
        self.label = label
        self.max_threads = max_threads
        self.thread_name_prefix = thread_name_prefix
        self.storage_access = storage_access
        self.working_dir = working_dir
        self.managed = managed
        for option in _OPTIONS:
            value = getattr(self, option.name)
            if option.check is not None and (wrong := option.check(value)):
                raise ConfigurationError(f"ThreadPoolExecutor: {option.name} {wrong}, not {value!r}")
        # One at each start: an executor may serve one kernel after the other.
        self._pool: Pool | None = None

    @property
    def scaling_enabled(self) -> bool:
        """Always False: threads do not come in blocks."""
        return False

    def start(self, context: RunContext) -> None:
        """Become ready to take tries. Raises ExecutorClosed if it runs already, for another kernel."""
        if self._pool is not None and not self._pool.closed:
            raise ExecutorClosed(
                f"executor {self.label!r} is in use by another kernel: clean that up first, or make another executor"
            )
        self._pool = Pool(self.label, self.max_threads, self.thread_name_prefix, self.working_dir, context)

    def submit(self, key: TryKey, call: Call, /) -> None:
        """Queue one try. Any thread; returns at once.

        Raises:
            ExecutorClosed: the executor was not started, or was shut down.
            ExecutorBroken: no thread can work any more.
        """
        pool = self._pool
        if pool is None:
            raise ExecutorClosed(f"executor {self.label!r} was not started")
        pool.submit(key, call)

    def cancel(self, keys: Sequence[TryKey], /, *, kill: bool = False) -> None:
        """Cancel tries that wait; with ``kill`` also interrupt those that run."""
        if self._pool is not None:
            self._pool.cancel(keys, kill)

    def load(self) -> Load:
        """Return how many tries wait and run."""
        pool = self._pool
        if pool is None or pool.closed:
            return Load()
        return Load(waiting=len(pool.waiting), running=len(pool.running), slots=self.max_threads)

    def why_waiting(self, key: TryKey, /, *, timeout_s: float = 2.0) -> Sequence[Cause]:
        """Say what keeps a try from being done."""
        pool = self._pool
        return () if pool is None else pool.why_waiting(key)

    def look(self) -> None:
        """Warn, once, if all threads are occupied by tasks that do nothing while others wait. Called now and then."""
        if self._pool is not None:
            self._pool.look()

    def shutdown(self, timeout_s: float) -> ShutdownReport:
        """Give back what waits, interrupt what runs, and wait for the threads; those that go on are named and left.

        Threads are daemons: one that does not end does not keep the process alive.
        """
        report = ShutdownReport() if self._pool is None else self._pool.shutdown(timeout_s)
        # Kept by threads, of whichever pool of this process: by their attribute, since most runs have none.
        if kept_containers := sys.modules.get("flow_core.remote.kept_containers"):
            kept_containers.kept.close()
        return report

    def scale_out(self, workers: int = 1) -> None:
        """Not possible. Raises NotImplementedError."""
        raise NotImplementedError("a ThreadPoolExecutor does not scale: set max_threads")

    def scale_in(self, blocks: int) -> None:
        """Not possible. Raises NotImplementedError."""
        raise NotImplementedError("a ThreadPoolExecutor does not scale: set max_threads")

    def __repr__(self) -> str:
        return expression(self, [option.name for option in _OPTIONS])


_OPTIONS: Final = tuple(options_of(ThreadPoolExecutor))
