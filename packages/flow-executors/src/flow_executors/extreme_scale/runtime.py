"""One start of an ExtremeScaleExecutor: the runtime of the other executors, with one manager a block."""

from __future__ import annotations

from flow_core.interfaces.context import RunContext
from flow_executors.extreme_scale.job_words_core import who_ended
from flow_executors.extreme_scale.world_core import names_a_rank
from flow_executors.runtime import ExecutorRuntime, LaunchPlan
from flow_executors.wire.messages import ManagerLeft


class ExtremeScaleRuntime(ExecutorRuntime):
    """A running executor whose blocks have one manager each, for all their nodes. Any thread."""

    def __init__(self, plan: LaunchPlan, context: RunContext) -> None:
        """Start everything. Raises ExecutorError; then nothing is left running."""
        self._unexplained: set[str] = set()
        """Blocks whose end nobody has explained: MPI may kill the first rank before it can."""
        super().__init__(plan, context)

    @property
    def slots_per_block(self) -> int:
        """Slots that one block brings: as seen, else as many as it has ranks with workers."""
        workers = [offer.workers for offer in list(self.client.directory.managers.values())]
        return max(workers, default=self.plan.guessed_workers)

    def _left(self, departure: ManagerLeft) -> None:
        super()._left(departure)
        # One that leaves with tasks counts as lost, whatever it says: what it said of the rank is in the log already.
        if (departure.lost or "SIG" in departure.reason) and not names_a_rank(departure.reason):
            self._unexplained.add(departure.block)

    def dismiss(self, block: str) -> None:
        """A block's job is over: revoke its key, and say whose end it was, if nobody has said so."""
        super().dismiss(block)
        if block not in self._unexplained or self.scaler is None:
            return
        self._unexplained.discard(block)
        who = who_ended(self.scaler.last_words_of(block))
        if who:
            self._context.logger.warning("block %s of %s: the block is lost: %s", block, self.label, who)
