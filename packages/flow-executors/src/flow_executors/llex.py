"""LowLatencyExecutor: its options and their meaning. What it does once started is ``direct``."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final

from flow_core.interfaces.context import RunContext
from flow_core.interfaces.staging import Staging
from flow_core.representation import expression
from flow_executors.direct.pilot import DirectPilot
from flow_executors.htex import HighThroughputExecutor
from flow_executors.pilot import Pilot, Plan
from flow_executors.scaling.failures import BlockErrorHandler
from flow_providers.interfaces.provider import ExecutionProvider

_OPTIONS: Final = (
    "label",
    "provider",
    "launch_cmd",
    "address",
    "worker_ports",
    "worker_port_range",
    "storage_access",
    "working_dir",
    "worker_debug",
    "cores_per_worker",
    "mem_per_worker",
    "max_workers",
    "heartbeat_threshold",
    "heartbeat_period",
    "managed",
    "worker_logdir_root",
    "available_accelerators",
    "cpu_affinity",
    "block_error_handler",
    "manager_selector",
    "max_result_bytes",
    "max_worker_log_bytes",
    "block_start_timeout",
    "recovery_timeout",
)
_LOCAL = "127.0.0.1"


class LowLatencyExecutor(HighThroughputExecutor):
    """Runs each task as soon as it is there, for tight round trips: serving, interactive work, up to about ten nodes.

    The script is connected with the manager of each node, with nothing between them: a task is sent by the thread that
    submits it, and its result comes back alone. What the HighThroughputExecutor does for throughput and elasticity is
    not done: no batches, nothing handed out in advance, and no blocks but the ``init_blocks`` of the provider. What it
    does for safety is: keys, heartbeats, worker and manager deaths, cancelling, resources of tasks.

    The script itself answers the managers: while one long call of C code keeps all its Python threads from running, it
    cannot, and after ``heartbeat_threshold`` seconds of that they leave.

    Args:
        label: Name of the executor, unique in a Config.
        provider: Where blocks of nodes come from; None: ``LocalProvider()``.
        launch_cmd: Template of a manager's command; None for the default. See ``ManagerOptions.command``.
        address: Name or address at which workers reach this machine, or a function that gives it, called at each start
            (``address_by_query``). While it is the default and the provider's nodes are others, workers try every
            address of this machine and take the one that answers.
        worker_ports: Exact ports to listen at (the first that is free); overrides the range.
        worker_port_range: First port, and the one after the last.
        storage_access: Staging methods that replace the defaults.
        working_dir: Directory for staged files on the nodes.
        worker_debug: Write more to the logs.
        cores_per_worker: Cores one worker stands for; below 1 oversubscribes.
        mem_per_worker: Memory in GB one worker needs; limits the workers of a node.
        max_workers: Most workers of a node.
        max_workers_per_node: The same by its other name.
        heartbeat_threshold: Seconds of silence after which the other side counts as lost.
        heartbeat_period: Seconds between heartbeats.
        managed: Whether the kernel shuts it down.
        worker_logdir_root: Directory for the nodes' logs, where the run's directory cannot be reached from them.
        available_accelerators: Names of a node's accelerators, or their number; repeat a name to share it.
        cpu_affinity: ``none``, ``block``, ``alternating``, ``block-reverse`` or ``list:...``.
        block_error_handler: False: failed blocks are tried again for ever; or a function that decides, which gets the
            executor and the failed blocks, and returns the error of the tasks, or None to go on.
        manager_selector: ``idle`` (spread) or ``block`` (fill the first block first).
        max_result_bytes: Largest result of a task.
        max_worker_log_bytes: Most bytes of one worker's log; its middle is cut where tasks print more. 0: no limit.
        block_start_timeout: Seconds that the job of a block may run before its first manager connects; then it is
            cancelled, and counts as failed.
        recovery_timeout: Seconds that tasks of an executor that has had workers wait, with no block left, while one
            attempt to start another after the other fails; then they fail with ``ExecutorBroken``. An executor that
            never had any tells it after ``max(1, init_blocks)`` failures in a row. Either way a later call makes a
            fresh attempt.

    Raises:
        ConfigurationError: an option has an impossible value.
    """

    def __init__(
        self,
        label: str = "LowLatencyExecutor",
        provider: ExecutionProvider | None = None,
        launch_cmd: str | None = None,
        address: str | Callable[[], str] = _LOCAL,
        worker_ports: tuple[int, ...] | None = None,
        worker_port_range: tuple[int, int] = (54000, 55000),
        storage_access: Sequence[Staging] | None = None,
        working_dir: str | None = None,
        worker_debug: bool = False,
        cores_per_worker: float = 1.0,
        mem_per_worker: float | None = None,
        max_workers: float = math.inf,
        heartbeat_threshold: float = 120,
        heartbeat_period: float = 30,
        managed: bool = True,
        worker_logdir_root: str | None = None,
        available_accelerators: int | Sequence[str] = (),
        cpu_affinity: str = "none",
        block_error_handler: bool | BlockErrorHandler | None = True,
        manager_selector: str = "idle",
        max_result_bytes: int = 16 << 30,
        max_worker_log_bytes: int = 64 << 20,
        *,
        max_workers_per_node: float | None = None,
        block_start_timeout: float = 900,
        recovery_timeout: float = 600,
    ) -> None:
        super().__init__(
            label=label,
            provider=provider,
            launch_cmd=launch_cmd,
            address=address,
            worker_ports=worker_ports,
            worker_port_range=worker_port_range,
            storage_access=storage_access,
            working_dir=working_dir,
            worker_debug=worker_debug,
            cores_per_worker=cores_per_worker,
            mem_per_worker=mem_per_worker,
            max_workers=max_workers,
            prefetch_capacity=0,
            heartbeat_threshold=heartbeat_threshold,
            heartbeat_period=heartbeat_period,
            managed=managed,
            worker_logdir_root=worker_logdir_root,
            available_accelerators=available_accelerators,
            cpu_affinity=cpu_affinity,
            block_error_handler=block_error_handler,
            manager_selector=manager_selector,
            max_result_bytes=max_result_bytes,
            max_worker_log_bytes=max_worker_log_bytes,
            max_workers_per_node=max_workers_per_node,
            block_start_timeout=block_start_timeout,
            recovery_timeout=recovery_timeout,
        )

    _manager_module = "flow_executors.direct"
    _blocks_are_fixed = "the fixed blocks of this executor"

    def __repr__(self) -> str:
        return expression(self, _OPTIONS)

    def _make_pilot(self, plan: Plan, context: RunContext) -> Pilot:
        return DirectPilot(plan, context)
