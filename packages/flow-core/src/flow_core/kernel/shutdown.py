"""The end of a kernel: in order, within a bound, whatever happens."""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from flow_core.aside import within
from flow_core.errors import KernelClosedError
from flow_core.futures.callbacks import user_calls
from flow_core.futures.lean import settle_quietly
from flow_core.guard import one_line, pass_signal
from flow_core.hooks import hook_name, is_own
from flow_core.interfaces.events import EventKind, RunEnded
from flow_core.kernel.interrupts import guard, unguard
from flow_core.kernel.summary import summarize
from flow_core.observe.run_logger import lines_of

if TYPE_CHECKING:
    from flow_core.graph.core import Core
    from flow_core.interfaces.executor import Executor
    from flow_core.interfaces.memoizer import Memoizer
    from flow_core.kernel.live import Live
    from flow_core.kernel.parts import Parts
    from flow_core.staging.manager import StagingManager

_EXIT_S = 30.0
CALLBACKS_S = 5.0
_LEAST_S = 0.5
_SHUTDOWN = "flow-shutdown-"
_open: set[Closing] = set()


class Closing:
    """Cleans one kernel up, once: whoever comes second waits for the first."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self._lock = threading.Lock()
        self._begun = False
        self._exit_code = 0
        self._cleaner = 0
        self._kept: BaseException | None = None
        self._done = threading.Event()

    def begin(self) -> None:
        """The kernel is whole: from now on the end of the process cleans it up."""
        _open.add(self)
        guard(self)
        if self.parts.unseen is not None:
            self.parts.unseen.begin()
        atexit.register(self._at_exit)

    def undo(self) -> None:
        """The kernel could not be put together: end what was begun."""
        parts = self.parts
        parts.refusal = "it could not be started"
        for part in (parts.live, parts.memoizer, parts.staging, parts.pump, parts.run_log):
            if part is not None:
                part.close()

    def defer(self, error: BaseException) -> bool:
        """In a signal handler: keep its exception while this thread cleans up, or is in the graph's own steps."""
        if self._cleaner == threading.get_ident() and self._kept is None:
            self._kept = error
            return True
        return self.parts.reactor.defer(error)

    def end(self, number: int, timeout_s: float) -> None:
        """Clean up since the process ends by a signal."""
        self._exit_code = 128 + number
        self.cleanup(timeout_s, raises=False)

    def cleanup(self, timeout_s: float, *, raises: bool = True) -> None:
        """Clean up, or wait for the one who does.

        Raises:
            UnseenFailures: if ``raises``, and the Config says that they are to be raised.
        """
        with self._lock:
            first, self._begun = not self._begun, True
        if not first:
            self._done.wait(timeout_s)
            return
        self._cleaner = threading.get_ident()
        try:
            with lines_of(self.parts.info.run_id):
                _clean_up(self.parts, time.monotonic() + timeout_s, self._exit_code)
        finally:
            _open.discard(self)
            unguard(self)
            atexit.unregister(self._at_exit)
            self._cleaner = 0
            self._done.set()
        if self._kept is not None:
            raise self._kept
        unseen = self.parts.unseen.take_error() if raises and self.parts.unseen is not None else None
        if unseen is not None:
            raise unseen

    def _at_exit(self) -> None:
        if self._begun:
            self._done.wait(_EXIT_S)  # another thread is at it
            return
        if self.parts.refusal is not None:
            return
        if hasattr(sys, "last_value"):  # the script ended by an exception
            self._exit_code = 1
        self.tell_unfinished("at exit")
        self.cleanup(_EXIT_S, raises=False)

    def tell_unfinished(self, when: str) -> None:
        """Say how many tasks are about to be cancelled that nobody has cancelled: files of theirs will be missed."""
        unfinished = 0 if self._begun else self.parts.reactor.call(lambda: _not_cancelled(self.parts.reactor.core), 0)
        if unfinished:
            were = "tasks were" if unfinished > 1 else "task was"
            _say(
                self.parts.logger,
                f"flow: {unfinished} unfinished {were} cancelled {when}; wait for results, or for all tasks with "
                "dfk().wait_for_current_tasks()",
            )

    def disable_after_fork(self) -> None:
        """In a forked child: refuse calls, and let nobody wait for what only the parent can finish."""
        self._begun = False
        parts = self.parts
        parts.refusal = "this process was forked from the one that loaded the Config: load one here, or call it there"
        core = parts.reactor.core
        parts.reactor.renew_after_fork()
        if parts.live is not None:
            parts.live.forsake()
        live, core.live = core.live, {}
        for task in live.values():
            task.future._watch = None  # its lock may be held by a thread that does not exist here
            error = KernelClosedError(f"{task} belongs to the process this one was forked from")
            settle_quietly([(task.future, None, error)])


def _not_cancelled(core: Core) -> int:
    return sum(1 for task in core.live.values() if task.rare is None or not task.rare.promised)


def _say(logger: logging.Logger, line: str) -> None:
    logger.warning("%s", line)
    try:
        print(line, file=sys.stderr, flush=True)  # noqa: T201  (whoever leaves tasks behind must hear of it)
    except (OSError, ValueError):
        return


def _clean_up(parts: Parts, deadline: float, exit_code: int) -> None:
    """Each step is tried whatever became of those before it."""
    parts.refusal = parts.refusal or "its Config was cleaned up: load one again with flow.load()"
    reactor = parts.reactor
    steps: list[tuple[str, Callable[[], object]]] = [
        ("cancel unfinished tasks", lambda: _cancel_all(parts)),
        ("write the checkpoint", lambda: _checkpoint(parts, deadline)),
        ("shut executors down", lambda: _shut_down_executors(parts, deadline)),
        ("end what is left", lambda: reactor.post(reactor.core.abandon, None)),
        ("take no more questions", lambda: _close(parts.live)),
        ("wait for callbacks", lambda: _end_callbacks(parts, deadline)),
        ("close the memoizer", lambda: _close_memoizer(parts, deadline)),
        ("close staging", lambda: _close(parts.staging)),
        ("close the sinks", lambda: _close_sinks(parts, deadline)),
        ("tell the usage", lambda: _tell_usage(parts, exit_code)),
    ]
    for what, step in steps:
        try:
            step()
        except BaseException as error:  # a second Ctrl-C ends this; an exit that some hook asks for does not
            pass_signal(error)
            parts.logger.exception("Cleaning up: could not %s", what)
    if parts.unseen is not None:
        parts.unseen.ended(parts.logger)
    parts.logger.info("Run %s ended: %s", parts.info.run_id, summarize(reactor))
    if parts.run_log is not None:
        parts.run_log.close()


def _cancel_all(parts: Parts) -> None:
    if parts.gate is not None:
        parts.gate.open()
    unfinished = summarize(parts.reactor).unfinished
    parts.reactor.post(parts.reactor.core.close, None)
    if unfinished:
        parts.logger.info("%d unfinished tasks are cancelled", unfinished)


def _close(part: StagingManager | Live | None) -> None:
    if part is not None:
        part.close()


def _checkpoint(parts: Parts, deadline: float) -> None:
    memoizer = parts.memoizer
    if memoizer is not None and parts.config.checkpoint_mode in ("dfk_exit", "periodic", "task_exit"):
        _ask(parts, memoizer, "checkpoint", memoizer.checkpoint, deadline)


def _close_memoizer(parts: Parts, deadline: float) -> None:
    if parts.memoizer is not None:
        _ask(parts, parts.memoizer, "close", parts.memoizer.close, deadline)


def _ask(parts: Parts, memoizer: Memoizer, name: str, method: Callable[[], object], deadline: float) -> None:
    """Call a method of a memoizer; one of the user's own may take half of the time that is left."""
    if is_own(memoizer):
        method()
        return
    who = hook_name("memoizer", memoizer, name)
    try:
        ended = within(max(_LEAST_S, (deadline - time.monotonic()) / 2), method, "flow-hooks-end")
    except BaseException as error:
        parts.logger.error("%s raised %s", who, one_line(error), exc_info=error)
        return
    if not ended:
        parts.logger.error("%s did not return in time and was left behind", who)


def _shut_down_executors(parts: Parts, deadline: float) -> None:
    """Shut managed executors down, all at once, each in a thread of its own so that one that hangs costs no other."""
    executors = [*parts.executors.values(), *([] if parts.bodies is None else [parts.bodies])]
    threads = [
        threading.Thread(
            target=_shut_down,
            args=(parts.logger, executor, deadline),
            name=f"{_SHUTDOWN}{executor.label}",
            daemon=True,
        )
        for executor in executors
        if executor.managed
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.1, deadline - time.monotonic()))
        if thread.is_alive():
            label = thread.name.removeprefix(_SHUTDOWN)
            parts.logger.warning("Executor %r did not shut down in time and was left behind", label)


def _shut_down(logger: logging.Logger, executor: Executor, deadline: float) -> None:
    try:
        report = executor.shutdown(max(0.1, (deadline - time.monotonic()) * 0.8))
        for forced in report.forced:
            logger.warning("Executor %r was forced to end: %s", executor.label, forced)
        if report.left:
            _say(logger, f"flow: left behind at the end of the run: {report.left}")
    except BaseException:
        logger.exception("Executor %r could not be shut down", executor.label)


def _end_callbacks(parts: Parts, deadline: float) -> None:
    if not user_calls.drain(max(0.1, min(CALLBACKS_S, deadline - time.monotonic()))):
        parts.logger.warning("Callbacks of futures have not returned within %g s and were left behind", CALLBACKS_S)


def _close_sinks(parts: Parts, deadline: float) -> None:
    pump = parts.pump
    if pump is None:
        return
    if EventKind.RUN in pump.wants:
        s = summarize(parts.reactor)
        failed = s.failed + s.dep_failed
        pump.post(RunEnded(time.time_ns(), parts.info.run_id, s.completed, failed, s.memoized, s.cancelled))
    lost = pump.close(max(1.0, deadline - time.monotonic()))
    if lost:
        parts.logger.warning("%d events of this run were not recorded", lost)


def _tell_usage(parts: Parts, exit_code: int) -> None:
    if parts.usage is not None:
        s = summarize(parts.reactor)
        parts.usage.end(len(parts.executors), s.submitted, s.failed + s.dep_failed, exit_code)


def _after_fork_in_child() -> None:
    for closing in list(_open):
        closing.disable_after_fork()


os.register_at_fork(after_in_child=_after_fork_in_child)
