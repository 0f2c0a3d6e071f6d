"""Reporter of outcomes, with a thread of its own: for those that are known inside ``submit``, which must not report."""

from __future__ import annotations

import threading
from queue import SimpleQueue

from flow_core.bounded_calls import start_unless_ending
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
                # Few runs need it: only a try that cannot be pickled, or a pool that runs it at once.
                thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                # Else the process ends, and with it the futures.
                if start_unless_ending(thread):
                    self._thread = thread

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
