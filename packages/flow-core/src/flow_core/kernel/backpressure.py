"""Back-pressure: a call of an app waits while too many tasks are unfinished."""

from __future__ import annotations

import threading
from collections.abc import Callable

from flow_core.executors.threads import in_worker
from flow_core.futures.lean import in_callback

# Seconds after which a waiting call looks again by itself. Ends of tasks wake it at once; this bounds each wait.
_LOOK_S = 1.0


class SubmissionLimiter:
    """Lets calls through while fewer than ``limit`` tasks are unfinished.

    Threads in which tasks or callbacks run never wait here: they are what the unfinished tasks wait for.

    Attributes:
        limit: Number of tasks that may be unfinished.
        waiting: Number of threads that wait here.
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
        """Wake the calls that wait, since tasks have ended. Any thread; costs no lock where none waits."""
        # No lock where no call waits: this is called for each batch of ends. A call counts itself before it looks.
        if self.waiting:
            with self._changed:
                self._changed.notify_all()

    def open(self) -> None:
        """Let everybody through: the kernel closes."""
        self._open = True
        self.ended()
