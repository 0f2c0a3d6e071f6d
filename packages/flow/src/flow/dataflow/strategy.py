"""Strategy: one look at the executors of a run, and the blocks that follow from it, for scripts that look themselves.

A run scales its executors by itself (``Config(strategy=...)``). Who wants to decide when that is done gives
``strategy="none"``, and calls ``Strategy(dfk).strategize()``, or has a ``FlowControl`` or a ``Timer`` call it.
"""

from __future__ import annotations

from collections.abc import Sequence

from flow_core.interfaces.executor import BlockExecutor
from flow_core.interfaces.scaling import BlockLimits, Load
from flow_core.kernel.kernel import DataFlowKernel
from flow_executors.scaling.strategies import wanted_blocks

_COUNTED = ("PENDING", "RUNNING", "HELD", "UNKNOWN")  # states of blocks that are there, or come


class Strategy:
    """Asks for blocks, and gives them back, as the tasks of a run need them. Any thread, one at a time.

    Executors that the run scales by itself are left to it.

    Args:
        dfk: The kernel.
    """

    def __init__(self, dfk: DataFlowKernel) -> None:
        self.dfk = dfk

    def strategize(self, *_args: object) -> dict[str, int]:
        """Look at all executors once; return by label how many blocks were asked for, or given back (negative).

        Blocks until the providers have answered.

        Raises:
            ScalingFailed: a provider refused a block.
        """
        if self.dfk.config.strategy not in (None, "none"):
            return {}
        return {
            executor.label: change
            for executor in self.dfk.executors.values()
            if isinstance(executor, BlockExecutor) and executor.scaling_enabled and (change := self._scale(executor))
        }

    def _scale(self, executor: BlockExecutor) -> int:
        provider, load = executor.provider, executor.load()
        limits = BlockLimits(
            *(getattr(provider, name) for name in ("init_blocks", "min_blocks", "max_blocks", "parallelism"))
        )
        wanted = wanted_blocks(load.waiting + load.running, load.slots_per_block, limits)
        have = sum(number for state, number in load.blocks if state in _COUNTED)
        if wanted > have:
            return len(executor.scale_out(wanted - have))
        if wanted < have and _idle(load):
            given: Sequence[str] = executor.scale_in(have - wanted, max_idletime_s=self.dfk.config.max_idletime)
            return -len(given)
        return 0


def _idle(load: Load) -> bool:
    return not load.waiting and not load.running
