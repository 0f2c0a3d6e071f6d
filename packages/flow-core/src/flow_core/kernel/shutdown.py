"""Shutdown of a kernel: its steps in order, within a bound, whatever each of them comes to."""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from flow_core.bounded_calls import BoundedCall, NoAnswerError, WorkAside, keep_in_reserve, within
from flow_core.errors import BadCheckpoint, CleanupIncomplete, KernelClosedError
from flow_core.executors import user_pools
from flow_core.executors.threads import ThreadPoolExecutor
from flow_core.futures.callbacks import freeing_calls, user_calls
from flow_core.futures.lean import settle_quietly
from flow_core.guard import called, one_line, pass_signal, to_log
from flow_core.hooks import hook_name, is_own, where_in_users_code
from flow_core.interfaces.events import EventKind, RunEnded
from flow_core.kernel import run_record
from flow_core.kernel.interrupts import guard, unguard
from flow_core.kernel.summary import summarize
from flow_core.observe.run_logger import lines_of
from flow_core.printable import printable
from flow_core.staging.manager import CLOSE_S

if TYPE_CHECKING:
    from flow_core.graph.graph_core import GraphCore
    from flow_core.graph.task import Task
    from flow_core.interfaces.executor import Executor
    from flow_core.interfaces.memoizer import Memoizer
    from flow_core.kernel.components import KernelComponents
    from flow_core.kernel.live import LiveQueries
    from flow_core.kernel.progress import ProgressTicker
    from flow_core.staging.manager import StagingManager

EXIT_S = 30.0  # seconds for the end of a run at exit; the default of cleanup() and the bound after SIGTERM, too
CALLBACKS_S = 5.0  # seconds that callbacks of users may still take; most take milliseconds
_FREEING_S = 1.0  # seconds for what is still to be freed, which takes microseconds as a rule
_LEAST_S = 0.5  # seconds for each step, however little of the whole is left: enough for one that does not hang
_LOG_S = 2.0  # seconds for one line: the log may be on a file system that hangs, stderr a pipe without a reader
# Seconds that a step which writes no results may wait for what does not answer, such as a file server. Steps
# that write results may wait longer: for half of the time that is left.
_STEP_S = 5.0
_OWN_S = 1.0  # seconds beyond the limit that a step has of its own, for a hook that hangs: that one is to come first
_NAMED = 3  # tasks that a message names
_SHUTDOWN = "flow-shutdown-"
_RESERVE = 4  # threads for a step that hangs, for the next one, for a line of the log and for a signal meanwhile
_open: set[KernelShutdown] = set()


class KernelShutdown:
    """Cleans one kernel up, once: a second caller waits for the first."""

    def __init__(self, parts: KernelComponents) -> None:
        self.parts = parts
        self._lock = threading.Lock()
        self._begun = False
        self._exit_code = 0
        self._cleaner = 0
        self._kept: BaseException | None = None
        self._given_up: list[str] = []
        self._done = threading.Event()

    def begin(self) -> None:
        """Have the end of the process clean the kernel up, which is whole now."""
        _open.add(self)
        guard(self)
        if self.parts.unseen is not None:
            self.parts.unseen.begin()
        # At the end of the interpreter no thread can start: these are for steps, for executors and for what they call.
        keep_in_reserve(_RESERVE + 2 * len(self.parts.executors))
        user_calls.keep_ready()
        atexit.register(self._at_exit)
        if user_pools.are_there():
            _before_pools_are_waited_for()

    def undo(self) -> None:
        """End what was begun of a kernel that could not be put together."""
        parts = self.parts
        parts.refusal = "it could not be started"
        for part in (parts.live, parts.ticker, parts.memoizer, parts.staging, parts.pump, parts.run_log):
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
        """Clean up, or wait for the thread that does.

        Raises:
            CleanupIncomplete: if ``raises``, and a step was given up. It is reported on standard error in any case.
            UnseenFailures: if ``raises``, and the Config says that they are to be raised.
        """
        with self._lock:
            first, self._begun = not self._begun, True
        # A signal, atexit and a with block may come at once; the second must not return while files are written.
        if not first:
            self._done.wait(timeout_s)
            return
        self._cleaner = threading.get_ident()
        try:
            with lines_of(self.parts.info.run_id):
                self._given_up, not_ended = _clean_up(self.parts, time.monotonic() + timeout_s, self._exit_code)
        finally:
            _open.discard(self)
            unguard(self)
            atexit.unregister(self._at_exit)
            self._cleaner = 0
            self._done.set()
        # An interrupt that came meanwhile is the user's wish: it comes before errors of the clean-up.
        if self._kept is not None:
            raise self._kept
        if self._given_up or not_ended:
            text = _incomplete(self.parts, self._given_up, not_ended)
            self._given_up += not_ended
            if raises:
                raise CleanupIncomplete(text, self._given_up)
            _print(f"flow: {text}")
        unseen = self.parts.unseen.take_error() if raises and self.parts.unseen is not None else None
        if unseen is not None:
            raise unseen

    def _at_exit(self) -> None:
        if self._begun:
            self._done.wait(EXIT_S)  # another thread is at it
            return
        if self.parts.refusal is not None:
            return
        if hasattr(sys, "last_value"):  # the script ended by an exception
            self._exit_code = 1
        self.report_unfinished("at exit")
        self.cleanup(EXIT_S, raises=False)
        if self._given_up:
            _incomplete_at_exit.append(self)

    def report_unfinished(self, when: str) -> None:
        """Report how many tasks the shutdown cancels that the script has not: files of theirs will be missed."""
        core = self.parts.reactor.core
        unfinished: list[Task] = []
        if not self._begun:
            unfinished = self.parts.reactor.call(lambda: _not_cancelled(core), unfinished)
        if unfinished:
            number = len(unfinished)
            were = "tasks were" if number > 1 else "task was"
            named = ", ".join(map(str, unfinished[:_NAMED]))
            named = f"such as {named}" if number > _NAMED else named
            _say(
                self.parts.logger,
                f"flow: {number} unfinished {were} cancelled {when} ({named}); wait for results, or for all tasks with "
                "dfk().wait_for_current_tasks()",
            )

    def disable_after_fork(self) -> None:
        """In a forked child: refuse calls, and end all futures, which only the parent could settle."""
        self._begun = False
        parts = self.parts
        parts.refusal = "this process was forked from the one that loaded the Config: load one here, or call it there"
        core = parts.reactor.core
        parts.reactor.renew_after_fork()
        if parts.live is not None:
            parts.live.abandon_after_fork()
        # The parent runs these tasks; a child that waits for one would wait for ever, so they end here.
        live, core.live = core.live, {}
        for task in live.values():
            task.future._watch = None  # its lock may be held by a thread that does not exist here
            error = KernelClosedError(f"{task} belongs to the process this one was forked from")
            settle_quietly([(task.future, None, error)])


_before_pools: list[Callable[[], None]] = []


def _before_pools_are_waited_for() -> None:
    """Have ``_at_failed_end`` called in time, once: ``atexit`` would be too late."""
    # A private name of the standard library, so its absence is no error: the pools are then waited for.
    register = getattr(threading, "_register_atexit", None)  # that by which pools see to it that they are waited for
    if register is not None and not _before_pools:
        _before_pools.append(_at_failed_end)
        register(_at_failed_end)


def _at_failed_end() -> None:
    """If the script ends by an exception, such as that of Ctrl-C, it must not wait for what its pools run for Flow."""
    if not hasattr(sys, "last_value"):
        return
    for closing in list(_open):
        closing._at_exit()
    user_pools.end_workers(shared=False)


def _not_cancelled(core: GraphCore) -> list[Task]:
    return [task for task in core.live.values() if task.details is None or not task.details.promised]


def _say(logger: logging.Logger, line: str) -> None:
    """Write a line to standard error and the log; either may be on something that does not answer."""
    _print(line)
    within(_LOG_S, lambda: logger.warning("%s", line), "flow-end-log")


def _print(line: str) -> None:
    stderr = sys.stderr
    if stderr is None:
        return
    try:
        within(_LOG_S, lambda: print(printable(line), file=stderr, flush=True), "flow-end-log")
    except (OSError, ValueError, AttributeError):
        return


def _incomplete(parts: KernelComponents, steps: Sequence[str], not_ended: Sequence[str]) -> str:
    told = []
    if steps:
        told.append(
            f"could not {', '.join(steps)}: what this waits for, such as the file system of that directory, does not "
            "answer. What was to be written may be missing there"
        )
    if not_ended:
        told.append(f"could not {'; '.join(not_ended)}")
    return f"the run in {parts.info.run_dir} {'. It '.join(told)}"


_incomplete_at_exit: list[KernelShutdown] = []


@atexit.register
def _exit_as_incomplete() -> None:
    """Let the script exit with 1. Handlers that the script has registered since it imported Flow have run by now."""
    if _incomplete_at_exit:
        for stream in (sys.stdout, sys.stderr):
            try:
                within(_LOG_S, stream.flush, "flow-end-log")
            except (OSError, ValueError, AttributeError):
                pass
        # An exit code cannot be set in a handler of atexit; streams are flushed above, since this skips that.
        os._exit(1)


class _Step(NamedTuple):
    """A step of the end of a run.

    Attributes:
        what: Name of the step in messages, after "could not".
        do: The step itself.
        idle_s: Seconds it may wait for what does not answer; None where it has a limit of its own, and belongs on
            the thread that cleans up.
    """

    what: str
    do: Callable[[], object]
    idle_s: Callable[[], float] | None


def _clean_up(parts: KernelComponents, deadline: float, exit_code: int) -> tuple[list[str], list[str]]:
    """Try each step, whatever became of those before it; return the steps given up, and what else could not be done."""
    parts.refusal = parts.refusal or "its Config was cleaned up: load one again with flow.load()"
    reactor = parts.reactor
    not_ended: list[str] = []

    def half() -> float:
        return max(_LEAST_S, (deadline - time.monotonic()) / 2) + _OWN_S

    def least() -> float:
        return max(_LEAST_S, min(_STEP_S, deadline - time.monotonic()))

    def rest() -> float:
        return max(1.0, deadline - time.monotonic()) + _OWN_S

    # The checkpoint comes before executors, which may hang; staged files go when no task uses them any more;
    # sinks are closed after all that makes events; the log takes what any step says, so it is last.
    steps = [
        _Step("cancel unfinished tasks", lambda: _cancel_all(parts), least),
        _Step("write the checkpoint", lambda: _checkpoint(parts, deadline), half),
        _Step("shut executors down", lambda: _shut_down_executors(parts, deadline, not_ended), rest),
        _Step("end what is left", lambda: reactor.post(reactor.core.abandon, None), least),
        _Step("remove its socket", lambda: _close(parts.live), least),
        _Step("tell no more of moving files", lambda: _close(parts.ticker), least),
        _Step("wait for callbacks", lambda: _end_callbacks(parts, deadline), None),
        _Step("close the checkpoint", lambda: _close_memoizer(parts, deadline, not_ended), half),
        _Step("remove staged files", lambda: _close(parts.staging), lambda: half() + CLOSE_S),
        _Step("close the sinks", lambda: _close_sinks(parts, deadline), rest),
        _Step("tell the usage", lambda: _report_usage(parts, exit_code), least),
        _Step("write its record", lambda: _write_record(parts), least),
        _Step("close its log", lambda: _close_log(parts), least),
    ]
    # One thread for all, as long as none hangs: a thread for each took half as long as all else of an empty run.
    aside = WorkAside("flow-end")
    try:
        return [step.what for step in steps if not _done(parts, step, aside)], not_ended
    finally:
        aside.close()


def _done(parts: KernelComponents, step: _Step, aside: WorkAside) -> bool:
    """Do a step; False if it was given up. Raises what came from a signal."""

    def do() -> None:
        with lines_of(parts.info.run_id):
            step.do()

    try:
        if step.idle_s is not None:
            return aside.ends(step.idle_s(), do)
        step.do()
    except BaseException as error:  # a second Ctrl-C ends this; an exit that some hook asks for does not
        pass_signal(error)
        told = partial(parts.logger.error, "Cleaning up: could not %s", step.what, exc_info=to_log(error))
        within(_LOG_S, told, "flow-end-log")
    return True


def _close_log(parts: KernelComponents) -> None:
    if parts.unseen is not None:
        parts.unseen.ended(parts.logger)
    parts.logger.info("Run %s ended: %s", parts.info.run_id, summarize(parts.reactor))
    if parts.run_log is not None:
        parts.run_log.close()


def _write_record(parts: KernelComponents) -> None:
    if parts.record is not None:
        tasks, failures = asdict(summarize(parts.reactor)), tuple(parts.failures.groups())
        ended = replace(parts.record, ended_ns=time.time_ns(), tasks=tasks, failures=failures)
        run_record.write(parts.info.run_dir, ended)


def _cancel_all(parts: KernelComponents) -> None:
    # Calls that wait for room are refused now: their threads must not outlive the run.
    if parts.gate is not None:
        parts.gate.open()
    unfinished = summarize(parts.reactor).unfinished
    parts.reactor.post(parts.reactor.core.close, None)
    if unfinished:
        parts.logger.info("%d unfinished tasks are cancelled", unfinished)


def _close(part: StagingManager | LiveQueries | ProgressTicker | None) -> None:
    if part is not None:
        part.close()


def _checkpoint(parts: KernelComponents, deadline: float) -> None:
    memoizer = parts.memoizer
    if memoizer is not None and parts.config.checkpoint_mode in ("dfk_exit", "periodic", "task_exit"):
        _ask(parts, memoizer, "checkpoint", memoizer.checkpoint, deadline)


def _close_memoizer(parts: KernelComponents, deadline: float, not_ended: list[str]) -> None:
    if parts.memoizer is not None:
        try:
            _ask(parts, parts.memoizer, "close", parts.memoizer.close, deadline)
        except BadCheckpoint as error:  # of Flow's own memoizer; what those of the user's own raise is in the log
            parts.logger.error("Could not write all results: %s", error)
            not_ended.append(f"write all results: {error}")


def _ask(parts: KernelComponents, memoizer: Memoizer, name: str, method: Callable[[], object], deadline: float) -> None:
    """Call a method of a memoizer; one of the user's own may take half of the time that is left."""
    if is_own(memoizer):
        method()
        return
    who = hook_name("memoizer", memoizer, name)
    try:
        ended = within(max(_LEAST_S, (deadline - time.monotonic()) / 2), method, "flow-hooks-end")
    except BaseException as error:
        parts.logger.error("%s raised %s", who, one_line(error), exc_info=to_log(error))
        return
    if not ended:
        parts.logger.error("%s did not return in time and was left behind", who)


def _shut_down_executors(parts: KernelComponents, deadline: float, not_ended: list[str]) -> None:
    """Shut managed executors down, all at once, each in a thread of its own so that one that hangs costs no other.

    Flow's own threads that run nothing cannot hang: starting a thread would take longer than ending them here.

    What executors could not end elsewhere is added to ``not_ended``.
    """
    executors = [*parts.executors.values(), *([] if parts.bodies is None else [parts.bodies])]
    managed = [executor for executor in executors if executor.managed]
    idle = [executor for executor in managed if type(executor) is ThreadPoolExecutor and not executor.load().running]
    busy = [
        (
            executor,
            BoundedCall(
                f"{_SHUTDOWN}{executor.label}", partial(_shut_down, parts.logger, executor, deadline, not_ended)
            ),
        )
        for executor in managed
        if executor not in idle
    ]
    for executor in idle:
        _shut_down(parts.logger, executor, deadline, not_ended)
    for other, aside in busy:
        try:
            aside.wait(max(0.1, deadline - time.monotonic()))
        except NoAnswerError:
            took = time.monotonic() - aside.since
            _say(
                parts.logger,
                f"flow: executor {other.label!r} was left behind at the end of the run: {called(other)}.shutdown "
                f"has not returned for {took:.0f} s{where_in_users_code(aside.thread_id)}",
            )


def _shut_down(logger: logging.Logger, executor: Executor, deadline: float, not_ended: list[str]) -> None:
    try:
        # Less than what is left: ``_shut_down_executors`` waits to the deadline, and the report is to come before.
        report = executor.shutdown(max(0.1, (deadline - time.monotonic()) * 0.8))
        for forced in report.forced:
            logger.warning("Executor %r was forced to end: %s", executor.label, forced)
        for phrase in report.not_ended:
            logger.error("Executor %r could not %s", executor.label, phrase)
        not_ended.extend(report.not_ended)
        if report.left:
            _say(logger, f"flow: left behind at the end of the run: {report.left}")
    except BaseException as error:
        pass_signal(error)
        logger.error("Executor %r could not be shut down", executor.label, exc_info=to_log(error))


def _end_callbacks(parts: KernelComponents, deadline: float) -> None:
    if not user_calls.drain(max(0.1, min(CALLBACKS_S, deadline - time.monotonic()))):
        told = partial(parts.logger.warning, "Callbacks of futures have not returned within %g s and were left behind")
        within(_LOG_S, lambda: told(CALLBACKS_S), "flow-end-log")
    # A ``__del__`` may write what it has left, so it is waited for; the log has named one that hangs.
    freeing_calls.drain(max(0.1, min(_FREEING_S, deadline - time.monotonic())))


def _close_sinks(parts: KernelComponents, deadline: float) -> None:
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


def _report_usage(parts: KernelComponents, exit_code: int) -> None:
    if parts.usage is not None:
        s = summarize(parts.reactor)
        parts.usage.end(len(parts.executors), s.submitted, s.failed + s.dep_failed, exit_code)


def _after_fork_in_child() -> None:
    for closing in list(_open):
        closing.disable_after_fork()


os.register_at_fork(after_in_child=_after_fork_in_child)
