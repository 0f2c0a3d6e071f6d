"""One start of a LowLatencyExecutor: the pilot of the other executors without its interchange, on fixed blocks."""

from __future__ import annotations

from dataclasses import replace

from flow_core.interfaces.context import RunContext
from flow_executors.client.face import ClientFace
from flow_executors.client.incarnation import Site
from flow_executors.client.receiver import Hooks
from flow_executors.direct.client import DirectClient
from flow_executors.pilot import Pilot, Plan


class DirectPilot(Pilot):
    """A running executor whose client is connected with its managers. Any thread."""

    def __init__(self, plan: Plan, context: RunContext) -> None:
        """Start everything. Raises ExecutorError; then nothing is left running."""
        super().__init__(plan, replace(context, scaling=replace(context.scaling, strategy="none")))

    def _make_client(self, site: Site, hooks: Hooks) -> ClientFace:
        context = self._context
        return DirectClient(site, context.listener, hooks, context.logger, self.plan.software)
