"""Reports outcomes from a thread of its own: for those found out inside ``submit``, which must not report."""

from __future__ import annotations

import threading
from queue import SimpleQueue

from flow_core.interfaces.outcome import Outcome, TryListener


class Reporter:
    """Hands outcomes to the listener from a daemon thread, which is started when it is first needed."""

    def __init__(self, listener: TryListener, name: str) -> None:
        self._listener = listener
        self._name = name
        self._queue: SimpleQueue[Outcome | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def report(self, outcome: Outcome) -> None:
        """Report an outcome soon. Any thread; never blocks."""
        self._queue.put(outcome)
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()

    def close(self, timeout_s: float) -> None:
        """Report what is left and end the thread."""
        with self._lock:
            thread = self._thread
        if thread is not None:
            self._queue.put(None)
            thread.join(timeout_s)

    def _run(self) -> None:
        while (outcome := self._queue.get()) is not None:
            self._listener.finished((outcome,))
