"""Deadlines: keys that are looked at again at points of time, on a thread that lives only while there are any."""

from __future__ import annotations

import heapq
import threading
import time
from collections.abc import Callable, Container
from typing import Generic, TypeVar

from flow_core.bounded_calls import start_unless_ending

K = TypeVar("K", bound=int)

_LONGEST_REST_S = 3600.0  # seconds; a wait for longer than threading.TIMEOUT_MAX raises
_MANY = 1000  # entries from which those are looked for that no longer matter; below, they cost no memory to speak of


class Deadlines(Generic[K]):
    """Calls a function with each key when its time has come, unless the key is no longer among those that matter.

    Any thread. The function is called on a daemon thread, with no lock held; it must not raise.
    """

    def __init__(self, name: str, due: Callable[[K], None], alive: Container[K]) -> None:
        """Take the thread's name, the function, and the keys that still matter (looked at, never changed)."""
        self._name = name
        self._due = due
        self._alive = alive
        self._changed = threading.Condition()
        self._heap: list[tuple[float, K]] = []
        self._full = _MANY
        self._thread: threading.Thread | None = None
        self._closed = False

    def add(self, key: K, in_s: float) -> None:
        """Look at a key in so many seconds."""
        with self._changed:
            if self._closed:
                return
            heapq.heappush(self._heap, (time.monotonic() + in_s, key))
            if len(self._heap) > self._full:
                self._forget()
            if self._thread is None:
                thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                # Else the process ends: whoever ends it waits no longer than that may take.
                if start_unless_ending(thread):
                    self._thread = thread
            # Only a new first entry changes how long the thread may sleep.
            elif self._heap[0][1] == key:
                self._changed.notify()

    def close(self) -> None:
        """Drop all keys and end the thread; keys that are added later are ignored. Any thread; does not wait."""
        with self._changed:
            self._closed = True
            self._heap.clear()
            self._changed.notify()

    def _forget(self) -> None:
        """Remove entries that no longer matter: limits are long, and tasks may be short and many."""
        self._heap = [entry for entry in self._heap if entry[1] in self._alive]
        heapq.heapify(self._heap)
        # Twice what is left, so that the cost of the search is spread over as many additions.
        self._full = max(_MANY, 2 * len(self._heap))

    def _run(self) -> None:
        while (key := self._next()) is not None:
            self._due(key)

    def _next(self) -> K | None:
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
            # Under the lock: ``add`` starts another thread, or this one has seen its entry.
            self._thread = None
            return None
