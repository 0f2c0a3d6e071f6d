"""How much work is handed out in advance: at first none, then about 20 ms of it a worker, and what a link needs. Pure.

A worker's pipe holds what it needs while its manager looks elsewhere. What it needs while a result travels to the other
side of a slow link and the next task comes back waits in the manager: as much work as two round trips take.
"""

from __future__ import annotations

import math

TARGET_S = 0.020
TRIPS = 2.0
"""Round trips of work to take in advance: what is estimated, and what is rounded, is never exact."""
_WORTH = 0.25
"""Of a task a worker: tasks so long that a link costs them less than that are not taken in advance for it."""
_MOST_A_SLOT = 2048
_MOST_BYTES = 64 << 20
"""Of tasks taken in advance for the sake of the link."""
MAX_DEPTH = 63
_CAUTION = 8
_SHORTEST_S = 1e-6


class Pace:
    """Estimates how long tasks take, and from it how many a worker may hold (``depth``, counting the one that runs).

    Attributes:
        depth: 1, 2, 4 ... 63.
        estimate: Seconds that a task takes, 0 before the first.
        prefetch: Tasks to take beyond the slots: those in pipes, and as many again waiting when they are short; and
            those that the link needs.
    """

    __slots__ = ("_ahead", "_cap", "_limit", "_size", "_slots", "_trip_s", "depth", "estimate", "prefetch")

    def __init__(self, slots: int, limit: int | None) -> None:
        """``limit`` is the user's cap of tasks prefetched by this manager beyond its slots; None for none."""
        self._slots = max(1, slots)
        self._limit = limit
        self._cap = MAX_DEPTH if limit is None else min(MAX_DEPTH, 1 + -(-limit // self._slots))
        self._trip_s = 0.0
        self._size = 0.0
        self._ahead = 0
        self.estimate = 0.0
        self.depth = 1
        self.prefetch = 0

    @property
    def far(self) -> bool:
        """Whether the link is slow."""
        return self._trip_s > 0

    def link(self, trip_s: float) -> None:
        """Take in how many seconds a round trip to the interchange takes; 0 for a link that costs nothing."""
        self._trip_s = trip_s
        self._look_ahead()

    def sized(self, count: int, size: int) -> None:
        """Take in that ``count`` tasks had ``size`` bytes together; to be told where the link is slow."""
        mean = size / max(1, count)
        self._size += (mean - self._size) * (min(0.5, count / _CAUTION) if self._size else 1.0)

    def learn(self, count: int, busy_s: float) -> bool:
        """Take in that ``count`` tasks took ``busy_s`` together; return whether the depth changed.

        Long tasks are believed at once, short ones only when several have been seen.
        """
        if not count:
            return False
        mean = max(_SHORTEST_S, busy_s / count)
        weight = 1.0 if not self.estimate else min(0.5, count / _CAUTION)
        self.estimate += (mean - self.estimate) * weight
        if self._trip_s:
            self._look_ahead()
        wanted = TARGET_S / self.estimate
        if 0.75 * self.depth <= wanted < 2 * self.depth:
            return False  # near enough: a depth that flickers costs messages
        depth = min(self._cap, _rounded(int(wanted)))
        changed = depth != self.depth
        self.depth = depth
        self.prefetch = self._wanted()
        return changed

    def _wanted(self) -> int:
        wanted = self._ahead
        if self.depth > 1:
            wanted += self._slots * self.depth * (2 if self.depth >= MAX_DEPTH else 1)
        return wanted if self._limit is None else min(wanted, self._limit)

    def _look_ahead(self) -> None:
        """Choose how many tasks to take for the link; small changes change nothing, since each costs a message."""
        if not (self._trip_s and self.estimate):
            ahead = 0
        else:
            each = TRIPS * self._trip_s / self.estimate
            ahead = min(math.ceil(self._slots * each), self._slots * _MOST_A_SLOT) if each >= _WORTH else 0
            if self._size:
                ahead = min(ahead, int(_MOST_BYTES / self._size))
            if 0.75 * self._ahead <= ahead <= 1.5 * self._ahead:
                return
        self._ahead = ahead
        self.prefetch = self._wanted()


def _rounded(depth: int) -> int:
    """Round down to a power of two, so that small changes of the estimate change nothing."""
    if depth >= MAX_DEPTH:
        return MAX_DEPTH
    return 1 << (depth.bit_length() - 1) if depth > 1 else 1
