"""Bounded calls: of the user's objects, on threads of their own, so that the caller waits no longer than it wants.

Since Python 3.12 no thread can be started once the interpreter ends, which is when a script without a ``with`` block
cleans up. For that time threads are kept in reserve, which were started before: see ``keep_in_reserve``.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue
from typing import Generic, TypeVar

T = TypeVar("T")
_LOOK_S = 0.5  # seconds between looks whether a call has used a CPU
# Nanoseconds of CPU time between two looks that count as work. A thread that only waits, with a bound for each wait,
# wakes now and then and uses less.
_WORK_NS = 100_000
_ENDING = "interpreter shutdown"


class NoAnswerError(Exception):
    """A call did not come back within its bound; it may still do so, and what it returns then is thrown away."""


class _Reserve:
    """Threads that wait for calls of the time when none can be started. Any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls: SimpleQueue[tuple[str, Callable[[], None]]] = SimpleQueue()
        self._idle = 0
        self._threads = 0

    def keep(self, number: int) -> None:
        with self._lock:
            while self._threads < number:
                threading.Thread(target=self._work, name="flow-reserve", daemon=True).start()
                self._threads += 1
                self._idle += 1

    def take(self, name: str, call: Callable[[], None]) -> bool:
        """Have one of them make a call, which must not raise; return whether there was one."""
        with self._lock:
            if not self._idle:
                return False
            self._idle -= 1
        self._calls.put((name, call))
        return True

    def _work(self) -> None:
        me = threading.current_thread()
        while True:
            name, call = self._calls.get()
            me.name = name
            call()
            del call  # it may hold what is large
            me.name = "flow-reserve"
            with self._lock:
                self._idle += 1


_reserve = _Reserve()


def _renew_reserve() -> None:
    global _reserve
    _reserve = _Reserve()


os.register_at_fork(after_in_child=_renew_reserve)


def keep_in_reserve(number: int) -> None:
    """Have so many threads wait for the end of the interpreter, from Python 3.12 on; before, threads can start then.

    Raises:
        RuntimeError: the process can have no more threads.
    """
    if sys.version_info >= (3, 12):
        _reserve.keep(number)


def begin(name: str, call: Callable[[], None]) -> bool:
    """Make a call on a daemon thread, a new one or one of the reserve; return False where there is none. Any thread.

    The call must not raise.
    """
    try:
        threading.Thread(target=call, name=name, daemon=True).start()
    except RuntimeError:  # the interpreter ends, or the system gives no more threads
        return _reserve.take(name, call)
    return True


def start_unless_ending(thread: threading.Thread) -> bool:
    """Start a thread; return False where that cannot be since the interpreter ends (Python 3.12 and later).

    Raises:
        RuntimeError: it cannot for another reason.
    """
    try:
        thread.start()
    except RuntimeError as error:
        # By its text, since nothing public tells that the interpreter ends; otherwise it is a limit of the system.
        if _ENDING not in str(error):
            raise
        return False
    return True


class BoundedCall(Generic[T]):
    """One call, on a daemon thread that begins with it. Any thread.

    While the interpreter ends, Python 3.12 and later begin no thread: the call is made by one of the reserve then, or
    where that is used up by the caller, without a bound.

    Args:
        name: Name of the thread.
        function: The function to call.
        late: Takes the answer where that comes when nobody waits for it any more.
        begin: Makes the call; without it a new thread does.

    Attributes:
        since: When it was begun, a ``time.monotonic`` reading.
        thread_id: Identity of its thread; 0 until that has begun.
    """

    def __init__(
        self,
        name: str,
        function: Callable[[], T],
        late: Callable[[T], object] | None = None,
        begin: Callable[[str, Callable[[], None]], bool] = begin,
    ) -> None:
        self._function = function
        self._late = late
        self._lock = threading.Lock()
        self._left = False
        self._answer: list[T] = []
        self._error: BaseException | None = None
        self._done = threading.Event()
        self._native_id = 0
        self._worked_ns = 0
        self.since = time.monotonic()
        self.thread_id = 0
        if not begin(name, self._run):
            self._run()

    @property
    def done(self) -> bool:
        """Whether the call has returned or raised."""
        return self._done.is_set()

    def worked_ns(self) -> int:
        """Return how long it has used a CPU so far; 0 where the operating system does not say."""
        try:
            with open(f"/proc/self/task/{self._native_id}/schedstat", "rb") as file:
                return int(file.read().split()[0]) - self._worked_ns
        except (OSError, ValueError, IndexError):
            return 0

    def wait(self, timeout_s: float) -> T:
        """Return its answer, or raise what it raised.

        Raises:
            NoAnswerError: it has not come back within the time. It goes on.
        """
        self._done.wait(timeout_s)
        with self._lock:
            # Under the lock, so that either the caller has the answer or ``late`` gets it, and never both or neither.
            self._left = not self._done.is_set()
        if self._left:
            raise NoAnswerError
        if self._error is not None:
            raise self._error
        return self._answer[0]

    def _run(self) -> None:
        self._worked_ns = time.thread_time_ns()  # of calls before this one
        self._native_id = threading.get_native_id()
        self.thread_id = threading.get_ident()
        try:
            self._answer.append(self._function())
        except BaseException as error:
            self._error = error
        with self._lock:
            self._done.set()
            late = self._left
        if late and self._late is not None and self._answer:
            try:
                self._late(self._answer[0])
            except BaseException:
                pass  # the caller has gone on without it, and knows of the delay


def within(timeout_s: float, call: Callable[[], object], name: str) -> bool:
    """Call something of the user's on a thread of this name, and wait for it so many seconds; return whether it ended.

    Raises:
        BaseException: what it raised. One that has not ended goes on, and nobody waits for it.
    """
    try:
        BoundedCall(name, call).wait(timeout_s)
    except NoAnswerError:
        return False
    return True


class WorkAside:
    """Thread that makes calls of Flow's own one after the other, each as long as it works. For one caller.

    The thread begins with the first call, and ends with ``close``. Where a call has not ended, it keeps the thread, and
    the next one begins another.

    Args:
        name: Name of the thread.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._calls: SimpleQueue[Callable[[], None] | None] | None = None

    def ends(self, idle_s: float, call: Callable[[], object]) -> bool:
        """Make a call, and wait as long as it works; return whether it ended.

        A call that uses no CPU for so many seconds waits for what does not answer, such as a server of files.

        Raises:
            BaseException: what it raised. One that has not ended goes on, and nobody waits for it.
        """
        aside = BoundedCall(self._name, call, begin=self._begin)
        try:
            return _ends(aside, idle_s)
        finally:
            if not aside.done:  # also where the wait was interrupted
                self.close()

    def close(self) -> None:
        """Let the thread end when it has nothing left to do."""
        calls, self._calls = self._calls, None
        if calls is not None:
            calls.put(None)

    def _begin(self, name: str, call: Callable[[], None]) -> bool:
        if self._calls is None:
            calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
            if not begin(name, lambda: _make_all(calls)):
                return False
            self._calls = calls
        self._calls.put(call)
        return True


def _make_all(calls: SimpleQueue[Callable[[], None] | None]) -> None:
    while (call := calls.get()) is not None:
        call()
        del call  # it may hold what is large


def _ends(aside: BoundedCall[object], idle_s: float) -> bool:
    worked_ns, until = 0, time.monotonic() + idle_s
    while True:
        try:
            aside.wait(min(_LOOK_S, max(0.0, until - time.monotonic())))
            return True
        except NoAnswerError:
            so_far_ns = aside.worked_ns()
        if so_far_ns > worked_ns + _WORK_NS:
            # It has worked: writing a large checkpoint may take minutes, and must not be cut off.
            worked_ns, until = so_far_ns, time.monotonic() + idle_s
        elif time.monotonic() >= until:
            return False
