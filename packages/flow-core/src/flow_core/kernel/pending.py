"""Back-pressure: a call of an app waits while too many tasks are unfinished."""

from __future__ import annotations

import threading
from collections.abc import Callable

from flow_core.executors.threads import in_worker
from flow_core.futures.lean import in_callback

_LOOK_S = 1.0


class Gate:
    """Lets calls through while fewer than ``limit`` tasks are unfinished.

    Threads in which tasks or callbacks run never wait here: they are what the unfinished tasks wait for.

    Attributes:
        limit: How many tasks may be unfinished.
        waiting: How many threads wait here.
    """

    def __init__(self, limit: int, unfinished: Callable[[], int]) -> None:
        self.limit = limit
        self._unfinished = unfinished
        self._changed = threading.Condition()
        self.waiting = 0
        self._open = False

    def enter(self) -> None:
        """Wait for room, as long as it takes."""
        if self._unfinished() < self.limit or in_worker() or in_callback():
            return
        with self._changed:
            self.waiting += 1
            try:
                while not self._open and self._unfinished() >= self.limit:
                    self._changed.wait(_LOOK_S)
            finally:
                self.waiting -= 1

    def ended(self) -> None:
        """Look again: tasks have ended."""
        if self.waiting:
            with self._changed:
                self._changed.notify_all()

    def open(self) -> None:
        """Let everybody through: the kernel closes."""
        self._open = True
        self.ended()
