"""Runs what is the user's and may take long, done-callbacks above all, where it holds up nothing but itself."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

from flow_core.guard import one_line, pass_signal
from flow_core.hooks import going_on

_ALONE_S = 0.5
"""After so long in one call its thread is left to it, and another thread goes on with those behind it."""
_TOLD_S = 3.0
"""After so long in one call the log names it."""
_MOST = 500
"""Threads left to calls that do not return; when there are so many, calls behind them wait."""

_logger = logging.getLogger("flow.futures")

Describe = Callable[[Callable[[Any], object], Any], str]
"""Says in a few words what a function is that is called with something."""
_Job = tuple[Callable[[Any], object], Any, Describe]


class _Here(threading.local):
    """Whether the calling thread runs what is the user's."""

    calling = False


class _Runner:
    """One thread, and what it is at.

    Attributes:
        since: When its call began, a ``time.monotonic`` reading; None while it has none.
        job: That call.
        told: Whether the log has named it.
    """

    __slots__ = ("job", "since", "thread", "told")

    def __init__(self) -> None:
        self.since: float | None = None
        self.job: _Job | None = None
        self.told = False
        self.thread: threading.Thread

    def busy_s(self, now: float) -> float:
        since = self.since
        return 0.0 if since is None else now - since


class UserCalls:
    """Calls functions of the user's one after the other, in the order in which they came, on a thread of its own.

    The thread is started with the first call. A call that takes longer than half a second keeps the thread, and another
    one goes on with those behind it: a call may wait for what a later one does. Threads are daemons.
    """

    def __init__(self, name: str = "flow-callbacks") -> None:
        """Take the name of the threads."""
        self._name = name
        self.renew()

    def renew(self) -> None:
        """Forget all calls and threads, which in a forked process do not exist."""
        self._queue: SimpleQueue[_Job] = SimpleQueue()
        self._lock = threading.RLock()  # a signal handler or finalizer may settle futures, too
        self._current: _Runner | None = None
        self._alone: list[_Runner] = []
        self._stirred = threading.Event()
        self._here = _Here()

    def soon(self, function: Callable[[Any], object], given: Any, describe: Describe) -> None:
        """Have ``function(given)`` called. Any thread; never blocks.

        What it raises, BaseExceptions too, is logged. ``describe(function, given)`` says what it is, for the log.
        """
        self._queue.put((function, given, describe))
        if self._current is None:
            with self._lock:
                if self._current is None:
                    self._current = self._started()
                    threading.Thread(target=self._watch, name=f"{self._name}-watch", daemon=True).start()

    def here(self) -> bool:
        """Tell whether the calling thread is in such a call."""
        return self._here.calling

    def drain(self, timeout_s: float) -> bool:
        """Wait until all calls so far have ended, but for one that the caller is in; tell whether they have."""
        if self._current is None:
            return True
        deadline = time.monotonic() + timeout_s
        begun = threading.Event()
        self._queue.put((lambda _: begun.set(), None, lambda _call, _given: "the last callback"))
        if not begun.wait(timeout_s):
            return False
        with self._lock:
            left = [runner.thread for runner in self._alone]
        for thread in left:
            if thread is not threading.current_thread():
                thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in left if thread is not threading.current_thread())

    # -- how

    def _started(self) -> _Runner:
        runner = _Runner()
        runner.thread = threading.Thread(target=self._run, args=(runner,), name=self._name, daemon=True)
        runner.thread.start()
        return runner

    def _run(self, runner: _Runner) -> None:
        self._here.calling = True
        take, stirred = self._queue.get, self._stirred
        while True:
            job = runner.job = take()
            runner.since = time.monotonic()
            if not stirred.is_set():
                stirred.set()
            call(*job)
            runner.since = None
            del job  # an idle thread must not keep a result alive
            runner.job = None
            if self._current is not runner and self._left(runner):
                return

    def _left(self, runner: _Runner) -> bool:
        """Tell whether another thread has taken over for a runner."""
        with self._lock:
            if self._current is runner:
                return False
            if runner in self._alone:
                self._alone.remove(runner)
            return True

    def _watch(self) -> None:
        while True:
            self._stirred.wait()
            self._stirred.clear()
            while self._look(time.monotonic()):
                time.sleep(_ALONE_S / 2)

    def _look(self, now: float) -> bool:
        """See to calls that take long; tell whether there is anything to look at soon."""
        with self._lock:
            current = self._current
            if current is not None and current.busy_s(now) > _ALONE_S and len(self._alone) < _MOST:
                self._alone.append(current)
                self._current = self._started()
            each = [*self._alone, *([] if self._current is None else [self._current])]
        for runner in each:
            if not runner.told and runner.busy_s(now) > _TOLD_S:
                runner.told = True
                self._tell(runner)
        return any(runner.since is not None and not runner.told for runner in each)

    def _tell(self, runner: _Runner) -> None:
        job, hook = runner.job, going_on(runner.thread.ident)
        if job is not None:
            _logger.warning(
                "%s has not returned for %g s: what it waits for, or does, is its own; others go on",
                _named(job) if hook is None else str(hook),
                _TOLD_S,
            )


def call(function: Callable[[Any], object], given: Any, describe: Describe) -> None:
    """Call what is the user's, and log what it raises. Only the exception of a signal comes out."""
    try:
        function(given)
    except BaseException as error:
        pass_signal(error)
        told = "%s raised %s; nothing else is affected"
        try:
            _logger.error(told, _named((function, given, describe)), one_line(error), exc_info=error)
        except BaseException as failure:  # of the exception's own, while it was formatted
            pass_signal(failure)
            _logger.error(told, "a callback", one_line(error))


def _named(job: _Job) -> str:
    try:
        return job[2](job[0], job[1])
    except BaseException as error:
        pass_signal(error)
        return "a callback"


user_calls = UserCalls()
"""The callbacks of the process."""
hook_calls = UserCalls("flow-hooks")
"""The hooks of its runs: tasks wait for them, and not for callbacks."""


def _renew() -> None:
    user_calls.renew()
    hook_calls.renew()


os.register_at_fork(after_in_child=_renew)
