"""The walltime of a task, enforced in the process that runs it.

On a main thread a timer signal raises AppTimeout in the Python code; on other threads a watcher thread raises it
asynchronously. Code in C is not interrupted: the exception comes when it returns, which it does at once where it can be
woken (``flow_core.remote.blocked``). A step that waits for something else (a shell command) takes the enforcement over
with ``held``.
"""

from __future__ import annotations

import heapq
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from flow_core.errors import AppTimeout
from flow_core.remote.blocked import wake

_AGAIN_S = 2.0  # code that swallowed the exception is interrupted again after this long
_LONGEST_S = 1e8  # three years; the system's timers refuse very long times

_here = threading.local()


def limited(run: Callable[[], object], limit_s: float, main_thread: bool) -> object:
    """Run something for at most ``limit_s`` seconds on the calling thread.

    Args:
        run: What to run.
        limit_s: Seconds.
        main_thread: Whether signals may be used; they may be only on a main thread.

    Raises:
        AppTimeout: it ran longer, also where it swallowed the exception and returned.
    """
    on_main = main_thread and threading.current_thread() is threading.main_thread()
    limit: _Limit = _SignalLimit(limit_s) if on_main else _ThreadLimit(limit_s)
    _here.limit = limit
    try:
        try:
            # Within the try: the limit may fire as soon as it is armed.
            limit.arm()
            result = run()
        finally:
            limit.disarm()
    except _Interrupt as interrupt:
        limit.disarm()  # again, since the first one may have been what was interrupted
        raise timed_out(limit_s).with_traceback(interrupt.__traceback__) from interrupt.__cause__
    finally:
        _here.limit = None
    # The code swallowed the exception and returned: it ran longer all the same.
    if limit.fired:
        raise timed_out(limit_s)
    return result


def timed_out(limit_s: float) -> AppTimeout:
    """Return the error of a task that was stopped at its limit. Who knows which task that was names it."""
    return AppTimeout.after(limit_s, "was stopped")


@contextmanager
def held() -> Iterator[tuple[float, float] | None]:
    """Take over the enforcement of the current task's walltime: no exception is raised inside the block.

    Gives the deadline (a ``time.monotonic`` reading) and the limit in seconds, or None if there is no limit. If the
    block ends normally, the remaining time is enforced again.
    """
    limit: _Limit | None = getattr(_here, "limit", None)
    if limit is None:
        yield None
        return
    limit.disarm()
    yield limit.deadline, limit.limit_s
    limit.arm()


class _Interrupt(AppTimeout):
    """The timeout that is raised inside the task; a class of its own, since the task may raise AppTimeout itself."""

    def __init__(self) -> None:
        limit: _Limit | None = getattr(_here, "limit", None)
        super().__init__(
            *(("the app ran longer than its walltime",) if limit is None else timed_out(limit.limit_s).args)
        )


class _Limit:
    """One task's limit; armed until it is disarmed, when nothing is raised any more."""

    def __init__(self, limit_s: float) -> None:
        self.limit_s = limit_s
        self.deadline = time.monotonic() + limit_s
        self.fired = False
        self.armed = False

    def arm(self) -> None:
        """Begin to enforce the limit, on the thread that runs the task."""
        raise NotImplementedError

    def disarm(self) -> None:
        """Stop enforcing: when this has returned, nothing is raised any more. Idempotent."""
        raise NotImplementedError


class _SignalLimit(_Limit):
    """Raises by a timer signal; for main threads."""

    def arm(self) -> None:
        """Set the timer, and keep the handler that SIGALRM had. Main thread only."""
        import signal

        self.armed = True
        self._before = signal.signal(signal.SIGALRM, self._fire)
        # 0 would stop the timer, so a deadline that has passed is one of 0.1 ms.
        left_s = min(max(self.deadline - time.monotonic(), 1e-4), _LONGEST_S)
        signal.setitimer(signal.ITIMER_REAL, left_s, _AGAIN_S)

    def disarm(self) -> None:
        """Stop the timer and put the handler back. Main thread only; idempotent."""
        import signal

        self.armed = False
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        before = getattr(self, "_before", None)
        if before is not None:
            signal.signal(signal.SIGALRM, before)
            self._before = None

    def _fire(self, signum: int, frame: object) -> None:
        if self.armed:
            self.fired = True
            raise _Interrupt


class _ThreadLimit(_Limit):
    """Raises by an asynchronous exception from the watcher thread; for all other threads."""

    def __init__(self, limit_s: float) -> None:
        super().__init__(limit_s)
        self.thread_id = threading.get_ident()

    def arm(self) -> None:
        """Have the watcher thread fire this limit at its deadline."""
        self.armed = True
        _watcher.watch(self)

    def disarm(self) -> None:
        """Stop enforcing, and take back an exception that was set and has not come yet. Idempotent."""
        # The watcher fires with this lock held, so after this block nothing is raised any more.
        with _watcher.changed:
            self.armed = False
            if self.fired:
                _raise_in(self.thread_id, None)

    def fire(self) -> None:
        """Called by the watcher, which holds its lock."""
        self.fired = True
        _raise_in(self.thread_id, _Interrupt)
        wake(self.thread_id)


def _raise_in(thread_id: int, what: type[BaseException] | None) -> None:
    import ctypes

    # None takes back an exception that was set and has not come yet.
    exc = ctypes.py_object(what) if what is not None else None
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread_id), exc)


class _Watcher:
    """One daemon thread a process that fires limits when they are due; it ends when there is nothing to watch."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self._due: list[tuple[float, int, _ThreadLimit]] = []
        self._count = 0
        self._thread: threading.Thread | None = None

    def watch(self, limit: _ThreadLimit) -> None:
        """Fire a limit at its deadline, and every two seconds after that while it is armed. Any thread."""
        with self.changed:
            self._push(limit.deadline, limit)
            # After a fork the thread is not there, though the object is.
            if self._thread is None or not self._thread.is_alive():
                from flow_core.bounded_calls import start_unless_ending  # few tasks have a limit, and it loads typing

                thread = threading.Thread(target=self._run, name="flow-walltime", daemon=True)
                # Else the process ends, which waits for no daemon thread.
                if start_unless_ending(thread):
                    self._thread = thread
            self.changed.notify()

    def _push(self, when: float, limit: _ThreadLimit) -> None:
        # The count decides between equal deadlines: limits themselves cannot be compared.
        self._count += 1
        heapq.heappush(self._due, (when, self._count, limit))

    def _run(self) -> None:
        with self.changed:
            while self._due:
                when, _, limit = self._due[0]
                wait_s = when - time.monotonic()
                if not limit.armed:
                    heapq.heappop(self._due)
                elif wait_s > 0:
                    self.changed.wait(min(wait_s, _LONGEST_S))
                else:
                    heapq.heappop(self._due)
                    limit.fire()
                    self._push(when + _AGAIN_S, limit)
            self._thread = None


_watcher = _Watcher()
