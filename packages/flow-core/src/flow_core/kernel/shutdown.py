"""The end of a kernel: in order, within a bound, whatever happens."""

from __future__ import annotations

import atexit
import getpass
import logging
import os
import socket
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import flow_core
from flow_core.interfaces.events import EventKind, RunEnded, RunStarted

if TYPE_CHECKING:
    from pathlib import Path

    from flow_core.config import Config
    from flow_core.interfaces.executor import Executor
    from flow_core.interfaces.sinks import RunInfo
    from flow_core.kernel.kernel import DataFlowKernel
    from flow_core.observe.logging import RunLog

_EXIT_S = 30.0
_logger = logging.getLogger("flow.kernel")
_open: weakref.WeakSet[DataFlowKernel] = weakref.WeakSet()


class Closing:
    """Cleans one kernel up, once: whoever comes second waits for the first."""

    def __init__(self, kernel: DataFlowKernel) -> None:
        self._kernel = weakref.ref(kernel)
        self._lock = threading.Lock()
        self._begun = False
        self._done = threading.Event()

    def begin(self) -> None:
        """The kernel is whole: from now on the end of the process cleans it up."""
        kernel = self._kernel()
        if kernel is not None:
            _open.add(kernel)
            atexit.register(self._at_exit)

    def cleanup(self, timeout_s: float) -> None:
        """Clean up, or wait for the one who does."""
        with self._lock:
            first, self._begun = not self._begun, True
        kernel = self._kernel()
        if kernel is None:
            return
        if not first:
            self._done.wait(timeout_s)
            return
        try:
            _clean_up(kernel, time.monotonic() + timeout_s)
        finally:
            _open.discard(kernel)
            atexit.unregister(self._at_exit)
            self._done.set()

    def _at_exit(self) -> None:
        kernel = self._kernel()
        if kernel is None or self._begun or kernel._refusal is not None:
            return
        unfinished = kernel.summary().unfinished
        if unfinished:
            were = "tasks were" if unfinished > 1 else "task was"
            _say(
                f"flow: {unfinished} unfinished {were} cancelled at exit; wait for results, or for all tasks with "
                "dfk().wait_for_current_tasks()"
            )
        self.cleanup(_EXIT_S)


def _say(line: str) -> None:
    _logger.warning("%s", line)
    try:
        print(line, file=sys.stderr, flush=True)  # noqa: T201  (the one line DECISIONS asks for)
    except (OSError, ValueError):
        return


def _clean_up(kernel: DataFlowKernel, deadline: float) -> None:
    """Each step is tried whatever became of those before it."""
    kernel._refusal = kernel._refusal or "its Config was cleaned up: load one again with flow.load()"
    if kernel._gate is not None:
        kernel._gate.open()
    steps: list[tuple[str, Callable[[], object]]] = [
        ("cancel unfinished tasks", lambda: _cancel_all(kernel)),
        ("write the checkpoint", lambda: _checkpoint(kernel)),
        ("shut executors down", lambda: _shut_down_executors(kernel, deadline)),
        ("end what is left", kernel._abandon),
        ("close the memoizer", lambda: kernel.memoizer.close() if kernel.memoizer is not None else None),
        ("close staging", kernel.staging.close),
        ("tell the end", lambda: _tell_end(kernel)),
        ("close the sinks", lambda: _close_sinks(kernel, deadline)),
        ("tell the usage", lambda: _tell_usage(kernel)),
    ]
    for what, step in steps:
        try:
            step()
        except Exception:
            _logger.exception("Cleaning up: could not %s", what)
    _logger.info("Run %s ended: %s", kernel.run_id, kernel.summary())
    if kernel._run_log is not None:
        kernel._run_log.close()


def _cancel_all(kernel: DataFlowKernel) -> None:
    unfinished = kernel.summary().unfinished
    kernel._reactor.post(kernel._core.close, None)
    if unfinished:
        _logger.info("%d unfinished tasks are cancelled", unfinished)


def _checkpoint(kernel: DataFlowKernel) -> None:
    mode = kernel.config.checkpoint_mode
    if kernel.memoizer is not None and mode in ("dfk_exit", "periodic", "task_exit"):
        kernel.memoizer.checkpoint()


def _shut_down_executors(kernel: DataFlowKernel, deadline: float) -> None:
    """Shut managed executors down, all at once, each in a thread of its own so that one that hangs costs no other."""
    threads = [
        threading.Thread(target=_shut_down, args=(executor, deadline), name=f"flow-shutdown-{label}", daemon=True)
        for label, executor in [*kernel.executors.items(), ("flow-join", kernel._bodies)]
        if executor.managed
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.1, deadline - time.monotonic()))
        if thread.is_alive():
            _logger.warning("An executor did not shut down in time and was left behind (%s)", thread.name)


def _shut_down(executor: Executor, deadline: float) -> None:
    try:
        report = executor.shutdown(max(0.1, (deadline - time.monotonic()) * 0.8))
    except Exception:
        _logger.exception("Executor %r could not be shut down", executor.label)
        return
    for forced in report.forced:
        _logger.warning("Executor %r was forced to end: %s", executor.label, forced)


def _close_sinks(kernel: DataFlowKernel, deadline: float) -> None:
    lost = kernel.pump.close(max(1.0, deadline - time.monotonic()))
    if lost:
        _logger.warning("%d events of this run were not recorded", lost)


def _tell_end(kernel: DataFlowKernel) -> None:
    if EventKind.RUN in kernel.pump.wants:
        s = kernel.summary()
        kernel.pump.post(
            RunEnded(time.time_ns(), kernel.run_id, s.completed, s.failed + s.dep_failed, s.memoized, s.cancelled)
        )


def _tell_usage(kernel: DataFlowKernel) -> None:
    s = kernel.summary()
    kernel._usage.end(len(kernel.executors), s.submitted, s.failed + s.dep_failed)


def tell_start(kernel: DataFlowKernel, info: RunInfo) -> None:
    """Post the event of a run's begin, if a sink wants it."""
    if EventKind.RUN not in kernel.pump.wants:
        return
    kernel.pump.post(
        RunStarted(
            time_ns=info.started_ns,
            run_id=info.run_id,
            epoch=info.epoch,
            name=info.name,
            script=sys.argv[0] if sys.argv else "",
            version=flow_core.__version__,
            python=sys.version.split()[0],
            host=socket.gethostname(),
            user=_user(),
            run_dir=str(info.run_dir),
            executors=tuple(kernel.executors),
        )
    )


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def open_log(config: Config, run_dir: Path) -> RunLog | None:
    """Begin the run's log if the Config asks for it."""
    if not config.initialize_logging:
        return None
    from flow_core.observe.logging import open_run_log

    return open_run_log(run_dir, config.log_format)


@contextmanager
def undone_on_error(closing: Closing) -> Iterator[None]:
    """If a kernel cannot be put together, end what was begun."""
    try:
        yield
    except BaseException:
        kernel: Any = closing._kernel()
        for name in ("memoizer", "staging"):
            part = getattr(kernel, name, None)
            if part is not None:
                part.close()
        if hasattr(kernel, "pump"):
            kernel.pump.close(5.0)
        if kernel._run_log is not None:
            kernel._run_log.close()
        raise


def _after_fork_in_child() -> None:
    for kernel in list(_open):
        kernel._disable_after_fork()


os.register_at_fork(after_in_child=_after_fork_in_child)
