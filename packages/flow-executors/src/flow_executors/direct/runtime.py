"""One start of a LowLatencyExecutor: the runtime of the other executors without its interchange, on fixed blocks."""

from __future__ import annotations

from dataclasses import replace

from flow_core.interfaces.context import RunContext
from flow_executors.client.interchange_process import InterchangeSettings
from flow_executors.client.interface import ExecutorClient
from flow_executors.client.receiver import ReceiverCallbacks
from flow_executors.direct.client import DirectClient
from flow_executors.runtime import ExecutorRuntime, LaunchPlan


class DirectExecutorRuntime(ExecutorRuntime):
    """A running executor whose client is connected with its managers. Any thread."""

    def __init__(self, plan: LaunchPlan, context: RunContext) -> None:
        """Start everything. Raises ExecutorError; then nothing is left running."""
        super().__init__(plan, replace(context, scaling=replace(context.scaling, strategy="none")))

    def _make_client(self, site: InterchangeSettings, hooks: ReceiverCallbacks) -> ExecutorClient:
        context = self._context
        return DirectClient(site, context.listener, hooks, context.logger, self.plan.software, self._code())
