"""How many blocks an executor should have: one formula for all of parallelism. Pure."""

from __future__ import annotations

import math

from flow_core.interfaces.scaling import BlockLimits

_CRUMB = 1e-9  # 6 x 0.5 / 3 must not round up


def wanted_blocks(active: int, slots_per_block: int, limits: BlockLimits) -> int:
    """Return the number of blocks for so many active tasks: ``ceil(active x parallelism / slots of a block)``.

    Never fewer than ``min_blocks``, nor more than ``max_blocks``; at least one while anything is active, however small
    the parallelism. While it is not known what a block brings, one is enough to find out.

    Args:
        active: Tasks that wait or run.
        slots_per_block: Tasks that one block runs at once; 0 where not known yet.
        limits: The executor's bounds.
    """
    needed = 0
    if active > 0:
        needed = math.ceil(active * limits.parallelism / slots_per_block - _CRUMB) if slots_per_block else 1
        needed = max(needed, 1)
    return min(limits.max_blocks, max(limits.min_blocks, needed))
