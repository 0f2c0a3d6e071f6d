"""How much work is handed out in advance: thin first, then about 20 ms of it a worker. Pure."""

from __future__ import annotations

TARGET_S = 0.020
MAX_DEPTH = 63
_CAUTION = 8
_SHORTEST_S = 1e-6


class Pace:
    """Estimates how long tasks take, and from it how many a worker may hold (``depth``, counting the one that runs).

    Attributes:
        depth: 1, 2, 4 ... 63.
        estimate: Seconds that a task takes, 0 before the first.
        prefetch: Tasks to take beyond the slots: those in pipes, and as many again waiting when they are short.
    """

    __slots__ = ("_cap", "_limit", "_slots", "depth", "estimate", "prefetch")

    def __init__(self, slots: int, limit: int | None) -> None:
        """``limit`` is the user's cap of tasks prefetched by this manager beyond its slots; None for none."""
        self._slots = max(1, slots)
        self._limit = limit
        self._cap = MAX_DEPTH if limit is None else min(MAX_DEPTH, 1 + -(-limit // self._slots))
        self.estimate = 0.0
        self.depth = 1
        self.prefetch = 0

    def learn(self, count: int, busy_s: float) -> bool:
        """Take in that ``count`` tasks took ``busy_s`` together; return whether the depth changed.

        Long tasks are believed at once, short ones only when several have been seen.
        """
        if not count:
            return False
        mean = max(_SHORTEST_S, busy_s / count)
        weight = 1.0 if not self.estimate else min(0.5, count / _CAUTION)
        self.estimate += (mean - self.estimate) * weight
        wanted = TARGET_S / self.estimate
        if 0.75 * self.depth <= wanted < 2 * self.depth:
            return False  # near enough: a depth that flickers costs messages
        depth = min(self._cap, _rounded(int(wanted)))
        changed = depth != self.depth
        self.depth = depth
        self.prefetch = self._wanted()
        return changed

    def _wanted(self) -> int:
        if self.depth == 1:
            return 0
        wanted = self._slots * self.depth * (2 if self.depth >= MAX_DEPTH else 1)
        return wanted if self._limit is None else min(wanted, self._limit)


def _rounded(depth: int) -> int:
    """Round down to a power of two, so that small changes of the estimate change nothing."""
    if depth >= MAX_DEPTH:
        return MAX_DEPTH
    return 1 << (depth.bit_length() - 1) if depth > 1 else 1
