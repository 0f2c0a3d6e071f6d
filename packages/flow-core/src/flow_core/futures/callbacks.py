"""Threads for code of the user's that may take long, done-callbacks above all: there it holds up nothing else."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from _thread import get_ident
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple

from flow_core.bounded_calls import start_unless_ending
from flow_core.guard import one_line, pass_signal, to_log
from flow_core.hooks import going_on, where_in_users_code

# Seconds in one call after which its thread is left to it, and another thread goes on with the calls behind it. Most
# callbacks take microseconds; a new thread for one that takes half a second costs nothing beside that.
_ALONE_S = 0.5
# Seconds in one call after which the log names it. Only the magnitude matters: well above what such calls take.
_TOLD_S = 3.0
# Threads left to calls that do not return; when there are so many, calls behind them wait. Only the magnitude matters:
# a script whose calls all hang must not take all the threads that its user may have.
_MOST = 500

_logger = logging.getLogger("flow.futures")

Describe = Callable[[Callable[[Any], object], Any], str]
"""Says in a few words what a function is that is called with something."""


class Limit(NamedTuple):
    """Time limit of a call.

    Attributes:
        seconds: The limit.
        passed: Gets the hook and a message, once, when the call has taken longer, on a thread that others need: it
            must not block. The call itself goes on, and nobody waits for it.
    """

    seconds: float
    passed: Callable[[str, str], object]


class _Job(NamedTuple):
    function: Callable[[Any], object]
    given: Any
    describe: Describe
    limit: Limit | None = None


class _RunnerOfThread(threading.local):
    """A flag of each thread: whether it runs the user's code here."""

    calling = False


class _Runner:
    """One thread, and the call that it runs.

    Attributes:
        since: When its call began, a ``time.monotonic`` reading; None while it has none.
        job: The call that it runs.
        was_logged: Whether the log has named it.
        given_up: Whether it has taken longer than it may.
    """

    __slots__ = ("given_up", "job", "since", "thread", "was_logged")

    def __init__(self) -> None:
        self.since: float | None = None
        self.job: _Job | None = None
        self.was_logged = False
        self.given_up = False
        self.thread: threading.Thread

    def busy_s(self, now: float) -> float:
        since = self.since
        return 0.0 if since is None else now - since

    @property
    def awaits(self) -> bool:
        """Whether its call is still to be named, or given up."""
        job = self.job
        return self.since is not None and (
            not self.was_logged or (job is not None and job.limit is not None and not self.given_up)
        )


class _Visit:
    """Something that a thread has begun, when (a ``time.monotonic`` reading), and whether the log has named it."""

    __slots__ = ("describe", "since", "was_logged")

    def __init__(self, since: float, describe: Callable[[], str]) -> None:
        self.since = since
        self.describe = describe
        self.was_logged = False

    def described(self) -> str:
        try:
            return self.describe()
        except BaseException as error:
            pass_signal(error)
            return "a call"


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
        # By thread, each of which writes its own entry only: no lock for each call of an app.
        self._visits: dict[int, _Visit] = {}
        self._watched = False
        self._stirred = threading.Event()
        self._here = _RunnerOfThread()

    def soon(
        self, function: Callable[[Any], object], given: Any, describe: Describe, limit: Limit | None = None
    ) -> None:
        """Have ``function(given)`` called. Any thread; never blocks.

        What it raises, BaseExceptions too, is logged. ``describe(function, given)`` says what it is, for the log.
        With a limit somebody is told if it takes too long.
        """
        self._queue.put(_Job(function, given, describe, limit))
        if self._current is None:
            self._begin()

    def keep_ready(self) -> None:
        """Start the threads now where calls of the time when the interpreter ends could not: from Python 3.12 on."""
        if sys.version_info >= (3, 12) and self._current is None:
            self._begin()

    @contextmanager
    def watched(self, describe: Callable[[], str]) -> Iterator[None]:
        """Watch what a ``with`` block does on the caller's own thread: ``enter`` and ``leave`` in one."""
        before = self.enter(describe)
        try:
            yield
        finally:
            self.leave(before)

    def enter(self, describe: Callable[[], str]) -> _Visit | None:
        """Begin something on the caller's thread that may call what is the user's, at the least cost that there is.

        The log names it by ``describe``, which another thread calls, if ``leave`` is not called soon. Returns what is
        to be given to ``leave``.
        """
        me = get_ident()
        before = self._visits.get(me)
        self._visits[me] = _Visit(time.monotonic(), describe)
        if not self._stirred.is_set():
            if not self._watched:
                with self._lock:
                    self._begin_watch()
            self._stirred.set()
        return before

    def leave(self, before: _Visit | None) -> None:
        """End what ``enter`` began, on the same thread; ``before`` is what that returned."""
        if before is None:
            self._visits.pop(get_ident(), None)
        else:
            self._visits[get_ident()] = before

    def here(self) -> bool:
        """Return whether the calling thread is in such a call."""
        return self._here.calling

    def drain(self, timeout_s: float) -> bool:
        """Wait until all calls so far have ended, but for one that the caller is in; return whether they have."""
        if self._current is None:
            return True
        deadline = time.monotonic() + timeout_s
        begun = threading.Event()
        # A call at the end of the queue: when it begins, all before it have ended or have a thread of their own.
        self._queue.put(_Job(lambda _: begun.set(), None, lambda _call, _given: "the last callback"))
        if not begun.wait(timeout_s):
            return False
        with self._lock:
            left = [runner.thread for runner in self._alone]
        for thread in left:
            if thread is not threading.current_thread():
                thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in left if thread is not threading.current_thread())

    # -- how

    def _begin(self) -> None:
        # Asked again: the lock is taken for the first call alone.
        with self._lock:
            if self._current is None:
                self._current = self._started()
                self._begin_watch()

    def _begin_watch(self) -> None:
        if not self._watched:
            self._watched = True
            start_unless_ending(threading.Thread(target=self._watch, name=f"{self._name}-watch", daemon=True))

    def _started(self) -> _Runner | None:
        """Return a runner with its thread; None where the process ends and none can be started any more."""
        runner = _Runner()
        runner.thread = threading.Thread(target=self._run, args=(runner,), name=self._name, daemon=True)
        return runner if start_unless_ending(runner.thread) else None

    def _run(self, runner: _Runner) -> None:
        self._here.calling = True
        take, stirred = self._queue.get, self._stirred
        while True:
            job = runner.job = take()
            runner.since = time.monotonic()
            # Asked first: to set an event takes its lock each time.
            if not stirred.is_set():
                stirred.set()
            call(job.function, job.given, job.describe)
            # An idle thread must not keep a result alive. The call is not over before: to free it may take long, too.
            runner.job = None
            del job
            runner.since = None
            runner.was_logged = runner.given_up = False
            # Another thread has taken over while this one was in its call: this one is one too many.
            if self._current is not runner and self._left(runner):
                return

    def _left(self, runner: _Runner) -> bool:
        """Return whether another thread has taken over for a runner."""
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
            time.sleep(_ALONE_S / 2)  # nothing has taken long yet; and so it is woken four times a second at most
            while self._look(time.monotonic()):
                time.sleep(_ALONE_S / 2)

    def _look(self, now: float) -> bool:
        """Handle calls that take long; return whether there is anything to look at soon."""
        with self._lock:
            current = self._current
            # Not stopped, which Python cannot: the call keeps its thread, and others get a new one.
            if current is not None and current.busy_s(now) > _ALONE_S and len(self._alone) < _MOST:
                further = self._started()
                if further is not None:
                    self._alone.append(current)
                    self._current = further
            each = [*self._alone, *([] if self._current is None else [self._current])]
        for runner in each:
            if not runner.was_logged and runner.busy_s(now) > _TOLD_S:
                runner.was_logged = True
                self._tell(runner)
            job = runner.job
            limit = None if job is None or runner.given_up else job.limit
            if job is not None and limit is not None and runner.busy_s(now) > limit.seconds:
                runner.given_up = True
                _give_up(runner, job, limit)
        # Only if none of them will ever be free, as far as can be told: else the calls wait.
        if len(each) > _MOST and all(runner.given_up for runner in each):
            self._refuse(len(each))
        return self._look_at_visits(now) or any(runner.awaits for runner in each)

    def _look_at_visits(self, now: float) -> bool:
        """Name what other threads have entered and not left; return whether there is anything to look at soon."""
        # A copy, since other threads enter and leave meanwhile without a lock.
        visits = list(self._visits.items())
        for thread, visit in visits:
            if not visit.was_logged and now - visit.since > _TOLD_S:
                visit.was_logged = True
                hook = going_on(thread)
                _logger.warning(
                    "%s has not returned for %g s%s: %s",
                    visit.described() if hook is None else str(hook),
                    _TOLD_S,
                    where_in_users_code(thread),
                    "the caller waits for it, and nobody else does",
                )
        return any(not visit.was_logged for _, visit in visits)

    def _refuse(self, number: int) -> None:
        """Give up calls that wait behind so many that do not return: there is no thread for them."""
        others = []
        while True:
            try:
                job = self._queue.get_nowait()
            except Empty:
                break
            if job.limit is None:
                others.append(job)
            else:
                name = _named(job)
                _passed(job.limit, name, f"{name} cannot be called, since {number} calls before it have not returned")
        for job in others:
            self._queue.put(job)

    def _tell(self, runner: _Runner) -> None:
        job, hook = runner.job, going_on(runner.thread.ident)
        name = "the freeing of what a call was given" if job is None else _named(job)
        _logger.warning(
            "%s has not returned for %g s%s: %s",
            name if hook is None else str(hook),
            _TOLD_S,
            where_in_users_code(runner.thread.ident or 0),
            "what it waits for, or does, is its own; others go on",
        )


def _give_up(runner: _Runner, job: _Job, limit: Limit) -> None:
    thread = runner.thread.ident or 0
    hook, where = going_on(thread), where_in_users_code(thread)
    name = _named(job) if hook is None else hook.name
    text = f"has not returned for {limit.seconds:g} s (hook_timeout){where}"
    _logger.error("%s %s: it is not waited for any more", name if hook is None else str(hook), text)
    _passed(limit, name, f"{name} {text}")


def _passed(limit: Limit, name: str, text: str) -> None:
    try:
        limit.passed(name, text)
    except BaseException as error:  # of the receiver's; this thread watches all others
        _logger.error("Giving up %s raised %s", name, one_line(error), exc_info=to_log(error))


def call(function: Callable[[Any], object], given: Any, describe: Describe) -> None:
    """Call what is the user's, and log what it raises. Only the exception of a signal comes out."""
    try:
        function(given)
    except BaseException as error:
        pass_signal(error)
        told = "%s raised %s; nothing else is affected"
        try:
            _logger.error(told, _named(_Job(function, given, describe)), one_line(error), exc_info=to_log(error))
        except BaseException as failure:  # of the exception's own, while it was formatted
            pass_signal(failure)
            _logger.error(told, "a callback", one_line(error))


def _named(job: _Job) -> str:
    try:
        return job.describe(job.function, job.given)
    except BaseException as error:
        pass_signal(error)
        return "a callback"


user_calls = UserCalls()
"""The callbacks of the process."""
hook_calls = UserCalls("flow-hooks")
"""The hooks of its runs: tasks wait for them, and not for callbacks."""
packing_calls = UserCalls("flow-packing")
"""Work on arguments and results of tasks, whose own methods may hang."""
freeing_calls = UserCalls("flow-freeing")
"""The freeing of these, see ``freeing``."""


def _renew() -> None:
    user_calls.renew()
    hook_calls.renew()
    packing_calls.renew()
    freeing_calls.renew()


os.register_at_fork(after_in_child=_renew)
