"""One start of an ExtremeScaleExecutor: the runtime of the other executors, with one manager a block."""

from __future__ import annotations

from flow_executors.runtime import ExecutorRuntime


class ExtremeScaleRuntime(ExecutorRuntime):
    """A running executor whose blocks have one manager each, for all their nodes. Any thread."""

    @property
    def slots_per_block(self) -> int:
        """Slots that one block brings: as seen, else as many as it has ranks with workers."""
        workers = [offer.workers for offer in list(self.client.directory.managers.values())]
        return max(workers, default=self.plan.guessed_workers)
