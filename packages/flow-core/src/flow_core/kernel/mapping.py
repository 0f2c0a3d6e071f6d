"""``flow.map``: an app over an iterable, endless ones included, with so many calls in flight as you say."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from typing import Any, TypeVar, cast

from flow_core.errors import ConfigurationError
from flow_core.futures.lean import Future as LeanFuture, wait_at, waiting, when_done

F = TypeVar("F", bound="Future[Any]")
T = TypeVar("T")


def map(
    app: Callable[[T], F], iterable: Iterable[T], *, max_in_flight: int = 1000, ordered: bool = True
) -> Iterator[F]:
    """Call an app on each item and yield its futures as they are done.

    The next item is taken only when fewer than ``max_in_flight`` calls are unfinished, so the iterable may be endless
    and its items are never all in memory. Futures of failed calls are yielded like others: ask them.

    Args:
        app: The app; called as ``app(item)``.
        iterable: Where the items come from; it is read in the caller's thread.
        max_in_flight: Calls that are unfinished, or finished and not yet yielded, at most.
        ordered: Whether futures are yielded in the order of the items, or as they are done.

    Raises:
        ConfigurationError: ``max_in_flight`` is no number above 0.
    """
    if isinstance(max_in_flight, bool) or not isinstance(max_in_flight, int) or max_in_flight < 1:
        raise ConfigurationError(f"max_in_flight must be a whole number of at least 1, not {max_in_flight!r}")
    calls = (app(item) for item in iterable)
    return _ordered(calls, max_in_flight) if ordered else _as_done(calls, max_in_flight)


def _ordered(calls: Iterator[F], limit: int) -> Iterator[F]:
    window: deque[F] = deque()
    more = True
    while more or window:
        # Filled before anything is yielded: the caller's work on one result overlaps with the next calls.
        while more and len(window) < limit:
            more = _take(calls, window)
        if window:
            future = window.popleft()
            _wait(future)
            yield future


def _as_done(calls: Iterator[F], limit: int) -> Iterator[F]:
    done: deque[F] = deque()
    room = threading.Semaphore(0)
    unfinished = 0
    more = True

    def ended(future: Future[object]) -> None:
        # Before the semaphore: the thread that gets past it must find a future there.
        done.append(cast(F, future))
        room.release()

    started: deque[F] = deque()
    while more or unfinished:
        while more and unfinished < limit:
            more = _take(calls, started)
            if more:
                unfinished += 1
                when_done(started.popleft(), ended)
        if unfinished:
            if not room.acquire(blocking=False):
                # The thread may be that of a task: its host lets another thread work meanwhile.
                with waiting():
                    wait_at(room, None)
            unfinished -= 1
            yield done.popleft()


def _take(calls: Iterator[F], into: deque[F]) -> bool:
    for future in calls:
        into.append(future)
        return True
    return False


def _wait(future: Future[object]) -> None:
    """Wait until a future is done, however it ends; that is no look at its failure."""
    if isinstance(future, LeanFuture):
        future._park(None)
        return
    if not future.cancelled():
        try:
            future.exception()
        except BaseException:
            if not future.done():
                raise
