"""A ``concurrent.futures.Future`` that costs next to nothing until somebody waits for it.

The stdlib's future makes a condition, a lock and two lists each; a run of a million tasks pays for all of them though
hardly any future is ever waited for. This one makes them when they are asked for:

- one lock for all lean futures guards their states, and a batch of futures is settled under one acquisition;
- ``result()`` parks on a plain lock made for that one waiter;
- a condition (which ``concurrent.futures.wait`` and ``as_completed`` use) is made on first access, and from then on
  guards that future's state too, so that nobody misses or sees twice what happened.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError, Future as StdFuture, InvalidStateError
from contextlib import contextmanager
from types import FunctionType
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, Protocol, TypeVar, cast

from flow_core.fork_locks import renewed_after_fork
from flow_core.futures.callbacks import call, user_calls
from flow_core.guard import called

R = TypeVar("R")

PENDING = "PENDING"
RUNNING = "RUNNING"
CANCELLED = "CANCELLED_AND_NOTIFIED"
FINISHED = "FINISHED"
"""The standard library's own names of the states, which ``wait`` and ``as_completed`` look at."""

# One for all futures: a run of a million tasks would pay for a lock each, though few futures are ever waited for.
# Reentrant, since a finalizer or signal handler may settle a future while this thread settles others.
_lock = renewed_after_fork(threading.RLock())


class _Waiter(Protocol):
    """The object that ``concurrent.futures.wait`` puts into ``_waiters``."""

    event: threading.Event

    def add_result(self, future: object) -> None: ...
    def add_exception(self, future: object) -> None: ...
    def add_cancelled(self, future: object) -> None: ...


class WaitHost(Protocol):
    """Host of a task's waits: notified of their begin and end, so that another thread may work meanwhile."""

    def begin_wait(self, future: Future[Any] | None, timeout: float | None) -> None:
        """The task is about to wait: for a future, or for what is not known here. Called by the thread itself.

        Raises:
            DeadlockError: the wait could never end.
        """
        ...

    def end_wait(self) -> None:
        """The wait is over. Any thread."""
        ...


class _WaitHostOfThread(threading.local):
    """The host of the calling thread's waits; None for all threads but those that run tasks."""

    host: WaitHost | None = None


_here = _WaitHostOfThread()
# Seconds. A task, or the main thread, that waits can be interrupted between two waits of this length: a signal that
# came just before the sleep is seen so late at most, and one wake-up a second costs nothing.
_SLICE_S = 1.0
_FOREVER_S = threading.TIMEOUT_MAX / 2  # half, since a semaphore adds it to the time of now, which may not overflow


def host_waits(host: WaitHost) -> None:
    """Notify ``host`` of all waits for futures of the calling thread, from now on."""
    _here.host = host


@contextmanager
def waiting() -> Iterator[None]:
    """Notify the calling thread's host, if it has one, of a wait for futures that is none of their own methods."""
    host = _here.host
    if host is None:
        yield
        return
    host.begin_wait(None, None)
    try:
        yield
    finally:
        host.end_wait()


class _EventInSlices(threading.Event):
    """An event on which functions of the standard library sleep on the main thread; see ``wait_at``."""

    def wait(self, timeout: float | None = None) -> bool:
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        while not super().wait(max(0.0, min(deadline - time.monotonic(), _SLICE_S))):
            if time.monotonic() >= deadline:
                return False
        return True


class _Waiters(list[_Waiter]):
    """Waiters of the standard library's functions, which append them before they sleep and remove them after it."""

    __slots__ = ("_hosts",)

    def append(self, waiter: _Waiter) -> None:
        host = _here.host
        if host is not None:
            host.begin_wait(None, None)
            # A new dict, since many threads may append at once.
            self._hosts = {**getattr(self, "_hosts", {}), id(waiter): host}
        elif _on_main_thread():
            # The event is made by the standard library just before: its class is the only place to change how it waits.
            waiter.event.__class__ = _EventInSlices
        super().append(waiter)

    def remove(self, waiter: _Waiter) -> None:
        super().remove(waiter)
        hosts: dict[int, WaitHost] | None = getattr(self, "_hosts", None)
        host = None if hosts is None else hosts.pop(id(waiter), None)
        if host is not None:
            host.end_wait()


class _Watch:
    """Condition and waiters of a future, made only when the standard library's functions wait for it."""

    __slots__ = ("condition", "waiters")

    def __init__(self) -> None:
        self.condition = threading.Condition()
        self.waiters: list[_Waiter] = _Waiters()


class _Prompt(NamedTuple):
    """A callback of Flow's own, called by the thread that settles the future."""

    call: Callable[[Any], object]


def failure_of(future: StdFuture[Any]) -> BaseException | None:
    """Return the exception of a future that is done and not cancelled; that is no look at its failure."""
    return future._exception if isinstance(future, Future) else future.exception()


class _Trampoline(threading.local):
    """The futures of this thread whose callbacks are still to be called; None while none are being called."""

    queue: deque[Future[object]] | None = None


_trampoline = _Trampoline()

CANCELLATION = CancelledError()
"""Settling a future with this very object as its exception cancels it."""

Settlement = tuple["Future[object]", object, BaseException | None]
"""A future, its result, and its exception (or CANCELLATION)."""


class Future(StdFuture[R]):
    """A future with the stdlib's behaviour, awaitable, at an eighth of its price.

    Works with ``concurrent.futures.wait``, ``as_completed`` and ``asyncio.wrap_future``. All methods may be called by
    any thread. Callbacks of users run on a thread of their own (see ``callbacks``), those that ``when_done`` adds on
    the thread that settles the future, each in the order of their registration. What the latter settle comes after
    them, not inside, so chains of any length do not recurse.
    """

    __slots__ = ("_done_callbacks", "_exception", "_parked", "_result", "_state", "_watch")

    _state: str
    _result: R | None
    _exception: BaseException | None
    _done_callbacks: list[Callable[[Future[R]], object] | _Prompt] | None
    _parked: list[threading.Lock] | None
    _watch: _Watch | None

    def __init__(self) -> None:
        self._state = PENDING
        self._result = None
        self._exception = None
        self._done_callbacks = None
        self._parked = None
        self._watch = None

    # -- what is asked of it

    def done(self) -> bool:
        """Return whether it has a result, an exception, or was cancelled."""
        state = self._state
        return state is FINISHED or state is CANCELLED

    def running(self) -> bool:
        """Return whether it is known to run."""
        return self._state is RUNNING

    def cancelled(self) -> bool:
        """Return whether it was cancelled."""
        return self._state is CANCELLED

    def result(self, timeout: float | None = None) -> R:
        """Wait for the result and return it.

        Args:
            timeout: Seconds to wait at most; None means without limit.

        Raises:
            TimeoutError: it was not done in time.
            CancelledError: it was cancelled.
            BaseException: whatever the call raised.
        """
        # No method call for a future that is done: results are most often asked of such.
        if self._state is not FINISHED:
            self._await_done(timeout)
        if self._exception is None:
            return self._result  # type: ignore[return-value]  # cast() is a call
        self._looked_at()
        __tracebackhide__ = True  # IPython and pytest leave this frame out
        try:
            raise self._exception
        finally:
            del self  # the traceback would hold the future, and the future the traceback

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Wait for the end and return the exception, None if there was none. Raises as ``result`` does otherwise."""
        if self._state is not FINISHED:
            self._await_done(timeout)
        error = self._exception
        if error is not None:
            self._looked_at()
        return error

    def cancel(self) -> bool:
        """Cancel it unless it runs or is done; return whether it is cancelled."""
        if self._state is PENDING:
            settle([(cast("Future[object]", self), None, CANCELLATION)])
        return self._state is CANCELLED

    def add_done_callback(self, fn: Callable[[Future[R]], object]) -> None:
        """Have ``fn(self)`` called when it is done: soon after that, on a thread that calls nothing else.

        If it is done already ``fn`` is called at once, by the calling thread. What a callback raises, ``SystemExit``
        and the like included, is logged and affects nothing else; one that waits holds up nobody.
        """
        # asyncio's own callback only wakes its loop and never blocks: another thread between would cost time.
        if type(fn) is FunctionType and fn.__module__ == "asyncio.futures":
            self._when_done(fn)
        elif not self._add(fn):
            if self._exception is not None:
                self._looked_at()
            call(fn, self, _describe_callback)

    def _when_done(self, fn: Callable[[Future[R]], object]) -> None:
        """Have ``fn(self)`` called by the thread that settles this future. For Flow's own, which never block."""
        if not self._add(_Prompt(fn)):
            call(fn, self, _describe_callback)

    def _add(self, callback: Callable[[Future[R]], object] | _Prompt) -> bool:
        """Keep a callback for the end; False if that has been."""
        while True:
            watch = self._watch
            # Of the two locks the one that guards the state now; ``wait`` holds the condition while it looks at states.
            with _lock if watch is None else watch.condition:
                if self._watch is not watch:  # a condition was made meanwhile: it guards the state now
                    continue
                if self.done():
                    return False
                if self._done_callbacks is None:
                    self._done_callbacks = []
                self._done_callbacks.append(callback)
                return True

    # -- what the kernel does with it

    def set_result(self, result: R) -> None:
        """Give it its result. Raises InvalidStateError if it is done."""
        if not settle([(cast("Future[object]", self), result, None)]):
            raise InvalidStateError(f"{self._state}: {self!r}")

    def set_exception(self, exception: BaseException | None) -> None:
        """Give it its exception. Raises InvalidStateError if it is done."""
        if exception is None:
            self.set_result(cast(R, None))
        elif not settle([(cast("Future[object]", self), None, exception)]):
            raise InvalidStateError(f"{self._state}: {self!r}")

    def _about_to_wait(self) -> None:
        """Take a hint that somebody is about to wait. Subclasses flush what they have buffered."""

    def _looked_at(self) -> None:
        """Take note that its failure was looked at."""

    def _why_not(self, timeout: float | None) -> str:
        """Return the end of a TimeoutError's message: nothing, or ``; `` and why it is not done, in one line."""
        return ""

    # -- how the stdlib and asyncio wait for it

    if not TYPE_CHECKING:  # to type checkers they are the attributes of the stdlib's, which as_completed() asks for

        @property
        def _condition(self) -> threading.Condition:
            return self._watched().condition

        @property
        def _waiters(self) -> list[_Waiter]:
            return self._watched().waiters

    def _watched(self) -> _Watch:
        watch = self._watch
        if watch is None:
            # Outside the lock: it may send what is buffered.
            self._about_to_wait()
            with _lock:
                watch = self._watch
                if watch is None:
                    watch = self._watch = _Watch()
        return watch

    def __await__(self) -> Generator[object, None, R]:
        from asyncio import wrap_future

        awaiting = wrap_future(self).__await__()
        return awaiting if _here.host is None else _hosted(awaiting)

    def _await_done(self, timeout: float | None) -> None:
        """Return when FINISHED; raise CancelledError or TimeoutError."""
        if not self.done() and not self._park(timeout):
            raise TimeoutError(f"{self!r} was not done within {timeout} s{self._why_not(timeout)}")
        if self._state is CANCELLED:
            raise CancelledError(self._cancelled_text())

    def _cancelled_text(self) -> str:
        return "the future was cancelled"

    def _park(self, timeout: float | None) -> bool:
        """Sleep until done or until the timeout; return whether it is done."""
        if timeout is not None and timeout <= 0:
            return self.done()
        self._about_to_wait()
        # A plain lock is the cheapest thing that one thread can sleep on.
        gate = threading.Lock()
        gate.acquire()
        host = _here.host
        if host is not None:
            host.begin_wait(self, timeout)
        try:
            with _lock:
                if self.done():
                    return True
                if self._parked is None:
                    self._parked = []
                self._parked.append(gate)
            return wait_at(gate, timeout) or self.done()
        finally:
            if host is not None:
                host.end_wait()
            with _lock:
                # It is there still after a timeout; a list that grows by each would outlive all waits.
                if self._parked is not None and gate in self._parked:
                    self._parked.remove(gate)

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"{self!r} cannot be sent to another process: pass it as an argument of its own or in inputs=[...], "
            "so that its result is sent instead"
        )

    def __repr__(self) -> str:
        return f"<{type(self).__name__} at {id(self):#x} {self._describe()}>"

    def _describe(self) -> str:
        if self._state is not FINISHED:
            return "state=cancelled" if self._state is CANCELLED else f"state={self._state.lower()}"
        if self._exception is not None:
            return f"state=finished raised {type(self._exception).__name__}"
        return f"state=finished returned {type(self._result).__name__}"


def _hosted(awaiting: Generator[object, None, R]) -> Generator[object, None, R]:
    """Await in a coroutine of a task; its host lets another thread work meanwhile."""
    with waiting():
        return (yield from awaiting)


def _on_main_thread() -> bool:
    return threading.get_ident() == threading.main_thread().ident


def wait_at(gate: threading.Lock | threading.Semaphore, timeout: float | None) -> bool:
    """Acquire a lock or semaphore within some seconds (None: without limit); return whether it was acquired.

    On the main thread, and in a task, by waits that are short enough for an exception to come in between: Python
    loses no signal that comes just before a thread begins to sleep, but calls its handler only when that thread wakes.
    """
    if _here.host is None and not _on_main_thread():
        return gate.acquire(timeout=_FOREVER_S if timeout is None else min(timeout, _FOREVER_S))
    if timeout is None:
        while not gate.acquire(timeout=_SLICE_S):
            pass
        return True
    deadline = time.monotonic() + timeout
    while (left_s := deadline - time.monotonic()) > 0:
        if gate.acquire(timeout=min(left_s, _SLICE_S)):
            return True
    return False


def settle(batch: Sequence[Settlement]) -> int:
    """Give many futures their results and call their callbacks; return how many were not done before.

    Takes the futures' lock once for all of them. Futures that are done already are left as they are.
    """
    settled, called = settle_quietly(batch)
    run_callbacks(called)
    return settled


def settle_quietly(batch: Sequence[Settlement]) -> tuple[int, list[Future[object]]]:
    """Settle as ``settle`` does and wake the waiting threads, but leave the callbacks to the caller.

    Returns:
        How many were settled, and those futures for which ``run_callbacks`` must be called.
    """
    watched: list[Settlement] | None = None
    parked: list[threading.Lock] | None = None
    called: list[Future[object]] = []
    settled = 0
    with _lock:
        for settlement in batch:
            future, value, error = settlement
            # Later, by itself: with ``_lock`` held a condition must not be waited for, whose holder may want ``_lock``.
            if future._watch is not None:
                watched = [] if watched is None else watched
                watched.append(settlement)
                continue
            if error is None and future._state is PENDING:  # most: what _put does, without a call
                future._result = value
                future._state = FINISHED
            elif not _put(settlement):
                continue
            settled += 1
            if future._done_callbacks is not None:
                called.append(future)
            if future._parked is not None:
                parked = future._parked if parked is None else parked + future._parked
                future._parked = None
    for settlement in watched or ():
        settled += _settle_watched(settlement, called)
    # After the lock, else each waiter would wake only to wait for it.
    for gate in parked or ():
        gate.release()
    return settled, called


def _put(settlement: Settlement) -> bool:
    """Set the state under the lock that guards it; return whether it was not done before."""
    future, value, error = settlement
    state = future._state
    if state is FINISHED or state is CANCELLED:
        return False
    if error is None:
        future._result = value
        future._state = FINISHED
    elif error is CANCELLATION:
        future._state = CANCELLED
    else:
        future._exception = error
        future._state = FINISHED
    return True


def _settle_watched(settlement: Settlement, called: list[Future[object]]) -> bool:
    """Settle a future for which the stdlib waits, under its own condition."""
    future = settlement[0]
    watch = future._watch
    assert watch is not None
    with watch.condition:
        if not _put(settlement):
            return False
        for waiter in watch.waiters:
            if future._state is CANCELLED:
                waiter.add_cancelled(future)
            elif future._exception is not None:
                waiter.add_exception(future)
            else:
                waiter.add_result(future)
        watch.condition.notify_all()
        if future._done_callbacks is not None:
            called.append(future)
    with _lock:
        gates, future._parked = future._parked, None
    for gate in gates or ():
        gate.release()
    return True


def run_callbacks(futures: Iterable[Future[object]]) -> None:
    """Call Flow's own callbacks of settled futures and of those that they settle; hand the users' on."""
    # A callback settled futures itself: the loop below, further up this stack, calls theirs.
    queue = _trampoline.queue
    if queue is not None:
        queue.extend(futures)
        return
    queue = deque(futures)
    if not queue:
        return
    _trampoline.queue = queue
    try:
        while queue:
            future = queue.popleft()
            callbacks, future._done_callbacks = future._done_callbacks, None
            # A callback of the user's gets the future and so the failure; one of Flow's own is no look at it.
            if future._exception is not None and any(type(callback) is not _Prompt for callback in callbacks or ()):
                future._looked_at()
            for callback in callbacks or ():
                if type(callback) is _Prompt:
                    call(callback.call, future, _describe_callback)
                else:
                    user_calls.soon(cast("Callable[[Future[object]], object]", callback), future, _describe_callback)
    finally:
        _trampoline.queue = None


def when_done(future: StdFuture[Any], fn: Callable[[Any], object]) -> None:
    """Have ``fn(future)`` called by the thread that settles a future of any library. For Flow's own callbacks."""
    if isinstance(future, Future):
        future._when_done(fn)
    else:
        future.add_done_callback(fn)


def in_callback() -> bool:
    """Return whether the calling thread is in a callback of a lean future."""
    return is_settling() or user_calls.here()


def is_settling() -> bool:
    """Return whether the calling thread settles futures: others may need it for what it would wait for."""
    return _trampoline.queue is not None


def _describe_callback(callback: Callable[[Any], object], future: object) -> str:
    return f"the callback {called(callback)} of {future!r}"
