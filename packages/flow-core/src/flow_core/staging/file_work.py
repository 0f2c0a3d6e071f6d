"""Background threads for work on files: what tasks have left is removed, what they are given is read."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable

from flow_core.bounded_calls import start_unless_ending

_CLOSE_S = 10.0  # seconds for all threads together; a file system that hangs must not keep a run from ending
_IDLE_S = 0.5  # seconds that a thread waits for more work before it ends

_logger = logging.getLogger("flow.staging")


class BackgroundFileWork:
    """Does one thing after the other on threads of its own, which end soon after the last one. Any thread.

    Only ``close`` waits.
    """

    def __init__(self, name: str = "flow-staging-errands", *, threads: int = 1, gather_s: float = 0.0) -> None:
        """Take the name of the threads, how many things are done at once, and how long something may wait for others.

        To wake a thread for each may take longer than the thing itself.
        """
        self._name = name
        self._gather_s = gather_s
        self._max = threads
        self._lock = threading.Lock()
        self._some = threading.Condition(self._lock)
        self._closing = False
        self._left: deque[Callable[[], object]] = deque()
        self._threads: set[threading.Thread] = set()
        self._idle = 0

    def do(self, errand: Callable[[], object]) -> None:
        """Have something done; what it raises is logged."""
        with self._lock:
            self._left.append(errand)
            if self._idle >= len(self._left):
                self._some.notify()
                return
            if len(self._threads) >= self._max:
                return
            self._closing = False
            thread = threading.Thread(target=self._work, name=self._name, daemon=True)
            # With the lock: close() must not join a thread that has not begun. Without a thread, since the process
            # ends, close() does what is left.
            if start_unless_ending(thread):
                self._threads.add(thread)

    def close(self) -> None:
        """Wait until all is done, for 10 s at most."""
        with self._lock:
            threads, self._closing = list(self._threads), True
            left = () if threads else tuple(self._left)
            if left:
                self._left.clear()
            self._some.notify_all()
        for errand in left:
            _try(errand)
        for thread in threads:
            if thread is not threading.current_thread():
                thread.join(_CLOSE_S / len(threads))

    def _work(self) -> None:
        while True:
            with self._lock:
                if self._gather_s and not self._left and not self._closing:
                    self._some.wait(self._gather_s)  # only closing ends it
                if not self._left and not self._closing:
                    self._idle += 1
                    self._some.wait(_IDLE_S)  # a new thread for each task costs more than the work
                    self._idle -= 1
                if not self._left:
                    self._threads.discard(threading.current_thread())
                    return
                errand = self._left.popleft()
            _try(errand)


def _try(errand: Callable[[], object]) -> None:
    try:
        errand()
    except Exception:
        _logger.exception("Files of an ended task could not be cleaned up")
