"""LowLatencyExecutor: its options and their meaning. What it does once started is ``direct``."""

from __future__ import annotations

from dataclasses import dataclass, field

from flow_core.interfaces.context import RunContext
from flow_core.option_records import documented
from flow_executors.direct.runtime import DirectExecutorRuntime
from flow_executors.htex import LABEL, PilotExecutor
from flow_executors.runtime import ExecutorRuntime, LaunchPlan


@documented
@dataclass(eq=False, repr=False)
class LowLatencyExecutor(PilotExecutor):
    """Runs each task as soon as it is there, for tight round trips: serving, interactive work, up to about ten nodes.

    The script is connected with the manager of each node, with nothing between them: a task is sent by the thread that
    submits it, and its result comes back alone. What the HighThroughputExecutor does for throughput and elasticity is
    not done: no batches, nothing handed out in advance, and no blocks but the ``init_blocks`` of the provider. What it
    does for safety is: keys, heartbeats, worker and manager deaths, cancelling, resources of tasks.

    The script itself answers the managers: while one long call of C code keeps all its Python threads from running, it
    cannot, and after ``heartbeat_threshold`` seconds of that they leave.

    Raises:
        ConfigurationError: an option has an impossible value.
    """

    label: str = field(default="LowLatencyExecutor", metadata=LABEL)

    _manager_module = "flow_executors.direct"
    _blocks_are_fixed = "the fixed blocks of this executor"

    def _make_runtime(self, plan: LaunchPlan, context: RunContext) -> ExecutorRuntime:
        return DirectExecutorRuntime(plan, context)
