"""Points of time at which something is to be looked at again, on a thread that lives only while there are any."""

from __future__ import annotations

import heapq
import threading
import time
from collections.abc import Callable, Container

from flow_core.interfaces.call import TryKey

_LONGEST_REST_S = 3600.0
_MANY = 1000


class Deadlines:
    """Calls a function with each key when its time has come, unless the key is no longer among those that matter.

    Any thread. The function is called on a daemon thread, with no lock held; it must not raise.
    """

    def __init__(self, name: str, due: Callable[[TryKey], None], alive: Container[TryKey]) -> None:
        """Take the thread's name, the function, and the keys that still matter (looked at, never changed)."""
        self._name = name
        self._due = due
        self._alive = alive
        self._changed = threading.Condition()
        self._heap: list[tuple[float, TryKey]] = []
        self._full = _MANY
        self._thread: threading.Thread | None = None
        self._closed = False

    def add(self, key: TryKey, in_s: float) -> None:
        """Look at a key in so many seconds."""
        with self._changed:
            if self._closed:
                return
            heapq.heappush(self._heap, (time.monotonic() + in_s, key))
            if len(self._heap) > self._full:
                self._forget()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()
            elif self._heap[0][1] == key:
                self._changed.notify()

    def close(self) -> None:
        """Look at nothing any more."""
        with self._changed:
            self._closed = True
            self._heap.clear()
            self._changed.notify()

    def _forget(self) -> None:
        """Let go of what no longer matters: limits are long and tasks may be short and many."""
        self._heap = [entry for entry in self._heap if entry[1] in self._alive]
        heapq.heapify(self._heap)
        self._full = max(_MANY, 2 * len(self._heap))

    def _run(self) -> None:
        while (key := self._next()) is not None:
            self._due(key)

    def _next(self) -> TryKey | None:
        """Wait for the next key whose time has come; None, and the end of the thread, if there is none."""
        with self._changed:
            while self._heap:
                when, key = self._heap[0]
                wait_s = when - time.monotonic()
                if wait_s <= 0 or key not in self._alive:
                    heapq.heappop(self._heap)
                    if key in self._alive:
                        return key
                else:
                    self._changed.wait(min(wait_s, _LONGEST_REST_S))
            self._thread = None
            return None
