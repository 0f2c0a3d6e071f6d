"""How much a manager, and the peers of a block's key together, may say beside results and tasks. Pure.

Who has a block's key, or a manager that has run mad, could else keep the interchange busy with messages that no task
stands behind: signs of life, samples, questions. Each costs units that come back with time. A manager that works stays
far below; who has none left is sent away, and its block has no place for another.
"""

from __future__ import annotations

from collections.abc import Mapping

from flow_executors.wire.kinds import Kind

BURST = 100_000.0
"""Units that may be spent at once, as after a pause in which nothing was read."""
EACH_S = 2_000.0
"""Units that come back in a second."""
COSTS: Mapping[int, tuple[float, int]] = {
    Kind.HEARTBEAT: (10.0, 64),
    Kind.EVENTS: (5.0, 256),
    Kind.WORKER: (5.0, 256),
    Kind.NOTICE: (500.0, 16),
    Kind.CREDIT: (10.0, 256),
    Kind.NEED: (10.0, 16),
    Kind.HELLO: (5.0, 16),
    Kind.REGISTER: (5.0, 4096),  # the tasks that it holds
}
"""Units of a message of each kind that costs something, and bytes for which it costs one more: what belongs to tasks
costs nothing. What the script writes to its log, or answers with much, costs most. Only magnitudes matter: 128 workers
sampled ten times a second cost half of what comes back."""
_UNKNOWN = (10.0, 64)
LATE = 0.5
"""Units of a result that nobody waits for: after a break all results come again that were not acknowledged."""
REASON = "it said more, beside results, than a manager that works has to say"


def cost(kind: int, size: int) -> float:
    """Return the units of a message of a kind and a size in bytes."""
    each, step = COSTS.get(kind, _UNKNOWN)
    return each + size / step


class TalkBudget:
    """Units that are left.

    Args:
        burst: Most that there are.
        each_s: What comes back in a second.
    """

    __slots__ = ("_at", "_burst", "_each_s", "_left")

    def __init__(self, burst: float = BURST, each_s: float = EACH_S) -> None:
        self._burst = burst
        self._each_s = each_s
        self._left = burst
        self._at = 0.0

    def spend(self, units: float, now: float) -> bool:
        """Spend units; False when there are none left."""
        self._left = min(self._burst, self._left + max(0.0, now - self._at) * self._each_s) - units
        self._at = now
        return self._left > 0
