"""HighThroughputExecutor: its options and their meaning. What it does once started is ``pilot.Pilot``."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from typing import Final

from flow_core.errors import ConfigurationError, ExecutorClosed, ExecutorError, ScalingFailed
from flow_core.interfaces.call import Call, TryKey
from flow_core.interfaces.context import RunContext
from flow_core.interfaces.executor import BlockExecutor, ShutdownReport
from flow_core.interfaces.scaling import Load
from flow_core.interfaces.staging import Staging
from flow_core.interfaces.waiting import Cause
from flow_core.representation import expression
from flow_executors.client.listen import is_loopback
from flow_executors.manager.logs import LEAST_BYTES
from flow_executors.manager.options import ManagerOptions
from flow_executors.options import check_options
from flow_executors.pilot import Pilot, Plan
from flow_executors.scaling.failures import BlockErrorHandler
from flow_executors.waiting import causes_of
from flow_executors.wire.frames import Registration
from flow_providers.interfaces.job_state import JobState
from flow_providers.interfaces.provider import ExecutionProvider

_OPTIONS: Final = (
    "label",
    "provider",
    "launch_cmd",
    "address",
    "worker_ports",
    "worker_port_range",
    "interchange_port_range",
    "storage_access",
    "working_dir",
    "worker_debug",
    "cores_per_worker",
    "mem_per_worker",
    "max_workers",
    "prefetch_capacity",
    "heartbeat_threshold",
    "heartbeat_period",
    "poll_period",
    "suppress_failure",
    "managed",
    "worker_logdir_root",
    "encrypted",
    "available_accelerators",
    "cpu_affinity",
    "drain_period",
    "block_error_handler",
    "manager_selector",
    "loopback_address",
    "max_result_bytes",
    "max_worker_log_bytes",
    "block_start_timeout",
    "recovery_timeout",
)
_WITHOUT_EFFECT: Final = {
    "interchange_port_range": (55000, 56000),
    "poll_period": 10,
    "suppress_failure": True,
    "encrypted": True,
    "loopback_address": "127.0.0.1",
}
_LOCAL = "127.0.0.1"


class HighThroughputExecutor(BlockExecutor):
    """Runs tasks on worker processes of many nodes: an interchange here, a manager a node, blocks from a provider.

    Args:
        label: Name of the executor, unique in a Config.
        provider: Where blocks of nodes come from; None: ``LocalProvider()``.
        launch_cmd: Template of a manager's command; None for the default. See ``ManagerOptions.command``.
        address: Name or address at which workers reach this machine, or a function that gives it, called at each start
            (``address_by_query``). While it is the default and the provider's nodes are others, workers try every
            address of this machine and take the one that answers.
        worker_ports: Exact ports to listen at (the first that is free); overrides the range.
        worker_port_range: First port, and the one after the last.
        interchange_port_range: Without effect: the way to the interchange is no TCP socket.
        storage_access: Staging methods that replace the defaults.
        working_dir: Directory for staged files on the nodes.
        worker_debug: Write more to the logs.
        cores_per_worker: Cores one worker stands for; below 1 oversubscribes.
        mem_per_worker: Memory in GB one worker needs; limits the workers of a node.
        max_workers: Most workers of a node.
        max_workers_per_node: The same by its other name.
        prefetch_capacity: Most tasks a manager takes beyond its workers; None for as many as is good.
        heartbeat_threshold: Seconds of silence after which the other side counts as lost.
        heartbeat_period: Seconds between heartbeats.
        poll_period: Without effect: nothing polls.
        suppress_failure: Without effect: failures of managers never end the interchange.
        managed: Whether the kernel scales it and shuts it down.
        worker_logdir_root: Directory for the nodes' logs, where the run's directory cannot be reached from them.
        encrypted: Without effect: all connections are encrypted, which costs nothing measurable.
        available_accelerators: Names of a node's accelerators, or their number; repeat a name to share it.
        cpu_affinity: ``none``, ``block``, ``alternating``, ``block-reverse`` or ``list:...``.
        drain_period: Seconds after which a manager takes no more tasks and leaves.
        block_error_handler: False: failed blocks are tried again for ever; or a function that decides, which gets the
            executor and the failed blocks, and returns the error of the tasks, or None to go on.
        manager_selector: ``idle`` (spread) or ``block`` (fill the first block first).
        loopback_address: Without effect.
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

    _manager_module = "flow_executors.manager"
    _blocks_are_fixed = ""
    """Why no strategy ever adds a block; empty where one may."""

    kills = True

    def __init__(
        self,
        label: str = "HighThroughputExecutor",
        provider: ExecutionProvider | None = None,
        launch_cmd: str | None = None,
        address: str | Callable[[], str] = _LOCAL,
        worker_ports: tuple[int, ...] | None = None,
        worker_port_range: tuple[int, int] = (54000, 55000),
        interchange_port_range: tuple[int, int] = (55000, 56000),
        storage_access: Sequence[Staging] | None = None,
        working_dir: str | None = None,
        worker_debug: bool = False,
        cores_per_worker: float = 1.0,
        mem_per_worker: float | None = None,
        max_workers: float = math.inf,
        prefetch_capacity: int | None = None,
        heartbeat_threshold: float = 120,
        heartbeat_period: float = 30,
        poll_period: float = 10,
        suppress_failure: bool = True,
        managed: bool = True,
        worker_logdir_root: str | None = None,
        encrypted: bool = True,
        available_accelerators: int | Sequence[str] = (),
        cpu_affinity: str = "none",
        drain_period: float | None = None,
        block_error_handler: bool | BlockErrorHandler | None = True,
        manager_selector: str = "idle",
        loopback_address: str = _LOCAL,
        max_result_bytes: int = 16 << 30,
        max_worker_log_bytes: int = 64 << 20,
        *,
        max_workers_per_node: float | None = None,
        block_start_timeout: float = 900,
        recovery_timeout: float = 600,
    ) -> None:
        self.label = label
        self.provider: ExecutionProvider | None = provider if provider is not None else _local_provider()
        self.launch_cmd = launch_cmd
        self.address = address
        self.worker_ports = worker_ports
        self.worker_port_range = worker_port_range
        self.interchange_port_range = interchange_port_range
        self.storage_access = storage_access
        self.working_dir = working_dir
        self.worker_debug = worker_debug
        self.cores_per_worker = cores_per_worker
        self.mem_per_worker = mem_per_worker
        self.max_workers = max_workers if max_workers_per_node is None else max_workers_per_node
        self.prefetch_capacity = prefetch_capacity
        self.heartbeat_threshold = heartbeat_threshold
        self.heartbeat_period = heartbeat_period
        self.poll_period = poll_period
        self.suppress_failure = suppress_failure
        self.managed = managed
        self.worker_logdir_root = worker_logdir_root
        self.encrypted = encrypted
        self.available_accelerators = available_accelerators
        self.cpu_affinity = cpu_affinity
        self.drain_period = drain_period
        self.block_error_handler = block_error_handler
        self.manager_selector = manager_selector
        self.loopback_address = loopback_address
        self.max_result_bytes = max_result_bytes
        self.max_worker_log_bytes = max_worker_log_bytes
        self.block_start_timeout = block_start_timeout
        self.recovery_timeout = recovery_timeout
        self._pilot: Pilot | None = None
        self._report = ShutdownReport()
        self._check()

    def __repr__(self) -> str:
        return expression(self, _OPTIONS)

    @property
    def max_workers_per_node(self) -> float:
        """Most workers of a node: ``max_workers`` by its other name."""
        return self.max_workers

    @max_workers_per_node.setter
    def max_workers_per_node(self, value: float) -> None:
        self.max_workers = value

    # -- Executor

    def start(self, context: RunContext) -> None:
        """Start the interchange and ask for the first blocks."""
        if self._pilot is not None:
            raise ExecutorError(f"executor {self.label!r} is started already: a Config can be loaded once at a time")
        self._check()
        for name, default in _WITHOUT_EFFECT.items():
            if getattr(self, name) != default:
                context.logger.info("option %s of %s has no effect here", name, self.label)
        self._check_scaling(context)
        from flow_executors import __version__

        self._pilot = self._make_pilot(
            Plan(
                label=self.label,
                addresses=self._addresses(),
                ports=tuple(self.worker_ports) if self.worker_ports is not None else None,
                port_range=self.worker_port_range,
                heartbeat_period_s=self.heartbeat_period,
                heartbeat_threshold_s=self.heartbeat_threshold,
                debug=self.worker_debug,
                packed=self.manager_selector == "block",
                provider=self.provider,
                block_error_handler=self.block_error_handler,
                block_start_timeout_s=self.block_start_timeout,
                recovery_timeout_s=self.recovery_timeout,
                command=self._command,
                guessed_workers=self._guessed_workers(),
                software=__version__,
            ),
            context,
        )

    def submit(self, key: TryKey, call: Call, /) -> None:
        """Take one try."""
        pilot = self._pilot
        if pilot is None:
            raise self._not_started()
        pilot.client.submit(key, call)

    def flush(self) -> None:
        """Send what is buffered."""
        if self._pilot is not None:
            self._pilot.client.flush()

    def cancel(self, keys: Sequence[TryKey], /, *, kill: bool = False) -> None:
        """Ask to cancel tries."""
        if self._pilot is not None:
            self._pilot.client.cancel(keys, kill)

    def load(self) -> Load:
        """Return the load."""
        return self._pilot.load() if self._pilot is not None else Load()

    def why_waiting(self, key: TryKey, /, *, timeout_s: float = 2.0) -> Sequence[Cause]:
        """Say all that keeps a try from being done: tasks ahead of it, resources, blocks that have no worker yet."""
        pilot = self._pilot
        return () if pilot is None else causes_of(pilot, key, timeout_s)

    def shutdown(self, timeout_s: float) -> ShutdownReport:
        """End the interchange and cancel all blocks."""
        pilot, self._pilot = self._pilot, None
        if pilot is not None:
            self._report = pilot.close(timeout_s)
        return self._report

    # -- BlockExecutor

    def scale_out(self, blocks: int = 1) -> Sequence[str]:
        """Ask the provider for blocks; return their ids."""
        pilot = self._started()
        if pilot.scaler is None:
            raise ScalingFailed(f"executor {self.label} has no provider")
        return pilot.scaler.scale_out(blocks)

    def scale_in(
        self,
        blocks: int | None = None,
        block_ids: Sequence[str] = (),
        *,
        max_idletime_s: float | None = None,
        timeout_s: float = 60.0,
    ) -> Sequence[str]:
        """Drain and give back up to so many blocks, or the blocks named; return their ids."""
        pilot = self._started()
        if isinstance(block_ids, str):
            raise ConfigurationError(f"scale_in takes a list of block ids, not the text {block_ids!r}: [{block_ids!r}]")
        if block_ids:
            return pilot.drain(block_ids, max_idletime_s)
        if pilot.scaler is None or not blocks:
            return ()
        return pilot.scaler.scale_in(blocks, max_idletime_s=max_idletime_s, timeout_s=timeout_s)

    # -- what there is

    def hold_worker(self, worker_id: str) -> None:
        """Give no more tasks to a manager (by its name, see ``connected_managers``); what it has it finishes."""
        pilot = self._started()
        if not pilot.client.command("hold", managers=(worker_id,)).blocks:
            names = ", ".join(offer.manager_id for offer in self.connected_managers()) or "none"
            raise ExecutorError(f"no manager {worker_id!r} is connected to {self.label}; connected: {names}")

    def connected_managers(self) -> list[Registration]:
        """Return what each connected manager offers."""
        return list(self._pilot.client.directory.managers.values()) if self._pilot is not None else []

    def connected_blocks(self) -> list[str]:
        """Return the ids of the blocks that have a manager connected."""
        return self._pilot.client.directory.blocks() if self._pilot is not None else []

    def outstanding(self) -> int:
        """Return how many tasks have no outcome yet."""
        return self._pilot.client.outstanding if self._pilot is not None else 0

    def status(self) -> dict[str, JobState]:
        """Return the state of every block by its id."""
        scaler = self._pilot.scaler if self._pilot is not None else None
        return dict(scaler.blocks()) if scaler is not None else {}

    # -- how

    def _make_pilot(self, plan: Plan, context: RunContext) -> Pilot:
        return Pilot(plan, context)

    def _started(self) -> Pilot:
        if self._pilot is None:
            raise self._not_started()
        return self._pilot

    def _not_started(self) -> ExecutorClosed:
        return ExecutorClosed(f"the executor {self.label} is not started, or was shut down")

    def _is_local(self) -> bool:
        provider = self.provider
        return provider is None or (
            provider.label == "local" and bool(getattr(getattr(provider, "channel", None), "is_local", True))
        )

    def _addresses(self) -> tuple[str, ...]:
        address = self.address() if callable(self.address) else self.address
        if address != _LOCAL or self._is_local():
            return (address,)
        from flow_executors.addresses import candidate_addresses

        return candidate_addresses() or (address,)

    def _guessed_workers(self) -> int:
        cores = self.provider.cores_per_node if self.provider is not None else None
        if cores is None and self._is_local():
            cores = os.cpu_count() or 1
        limits = [self.max_workers] if self.max_workers != math.inf else []
        if cores is not None:
            limits.append(max(1.0, cores / self.cores_per_worker))
        if self._accelerators():
            limits.append(len(self._accelerators()))
        return int(min(limits)) if limits else 0

    def _accelerators(self) -> tuple[str, ...]:
        given = self.available_accelerators
        return tuple(map(str, range(given))) if isinstance(given, int) else tuple(given)

    def _command(self, block: str, port: int, local: str, context: RunContext) -> str:
        nodes = self.provider.nodes_per_block if self.provider is not None else 1
        options = self._manager_options(block, port, local, context)
        return options.command(self.launch_cmd, module=self._manager_module, extra={"nodes_per_block": nodes})

    def _manager_options(self, block: str, port: int, local: str, context: RunContext) -> ManagerOptions:
        provider, addresses = self.provider, self._addresses()
        if local and all(map(is_loopback, addresses)):
            addresses = (*addresses, local)
        return ManagerOptions(
            executor=self.label,
            run_id=context.run_id,
            block=block,
            addresses=addresses,
            port=port,
            cores_per_worker=float(self.cores_per_worker),
            mem_per_worker=float(self.mem_per_worker or 0.0),
            max_workers=self.max_workers,
            prefetch_capacity=-1 if self.prefetch_capacity is None else self.prefetch_capacity,
            heartbeat_period=float(self.heartbeat_period),
            heartbeat_threshold=float(self.heartbeat_threshold),
            logdir=self._logdir(context),
            accelerators=" ".join(self._accelerators()),
            cpu_affinity=self.cpu_affinity,
            drain_period=float(self.drain_period or 0.0),
            working_dir=self.working_dir or "",
            max_result_bytes=self.max_result_bytes,
            max_worker_log_bytes=self.max_worker_log_bytes,
            sampler=_sampler_text(context),
            walltime=float((provider.walltime_s if provider is not None else None) or 0.0),
            debug=self.worker_debug,
        )

    def _logdir(self, context: RunContext) -> str:
        if self.worker_logdir_root is None:
            return str(context.executor_dir.absolute())
        return os.path.join(self.worker_logdir_root, context.run_dir.name, self.label)

    def _check(self) -> None:
        check_options(self, HighThroughputExecutor.__init__, _OPTIONS)
        if not isinstance(self.provider, ExecutionProvider):
            raise ConfigurationError(f"{type(self).__name__}: option provider={self.provider!r} is no provider")
        name = f"{type(self).__name__} {self.label!r}"
        if not self.label or os.sep in self.label or self.label in (".", ".."):
            raise ConfigurationError(f"{name}: label must be a name that can be a directory")
        if self.cores_per_worker <= 0:
            raise ConfigurationError(f"{name}: cores_per_worker must be above 0, not {self.cores_per_worker}")
        if self.max_workers < 1:
            raise ConfigurationError(f"{name}: max_workers must be at least 1, not {self.max_workers}")
        if self.prefetch_capacity is not None and self.prefetch_capacity < 0:
            raise ConfigurationError(f"{name}: prefetch_capacity must be 0 or more, or None for adaptive")
        if not 0 < self.heartbeat_period < self.heartbeat_threshold:
            raise ConfigurationError(
                f"{name}: heartbeat_period ({self.heartbeat_period}) must be above 0 and below heartbeat_threshold "
                f"({self.heartbeat_threshold})"
            )
        for option in ("block_start_timeout", "recovery_timeout"):
            if not getattr(self, option) > 0:
                raise ConfigurationError(f"{name}: {option} must be above 0, not {getattr(self, option)}")
        if self.max_worker_log_bytes and self.max_worker_log_bytes < LEAST_BYTES:
            raise ConfigurationError(f"{name}: max_worker_log_bytes must be 0 (no limit), or at least {LEAST_BYTES}")
        self._check_blocks(name)
        if self.manager_selector not in ("idle", "block"):
            raise ConfigurationError(f"{name}: manager_selector must be 'idle' or 'block'")

    def _check_blocks(self, name: str) -> None:
        """Refuse bounds under which there would never be a block."""
        most = self.provider.max_blocks if self.provider is not None else 1
        if most < 1:
            raise ConfigurationError(
                f"{name}: with max_blocks={most} of its provider there would never be a block, and tasks would wait "
                "for ever: give it at least 1"
            )

    def _check_scaling(self, context: RunContext) -> None:
        """Refuse a start after which nothing would ever bring a block."""
        provider = self.provider
        if provider is None or not self.managed or max(provider.init_blocks, provider.min_blocks) > 0:
            return
        fixed = self._blocks_are_fixed or ("strategy='none'" if context.scaling.strategy == "none" else "")
        if fixed:
            raise ConfigurationError(
                f"{type(self).__name__} {self.label!r}: with {fixed}, init_blocks=0 and min_blocks=0 of its provider "
                "no block would ever come, and tasks would wait for ever: set init_blocks to at least 1"
            )


def _local_provider() -> ExecutionProvider:
    from flow_providers.local.provider import LocalProvider

    return LocalProvider()


def _sampler_text(context: RunContext) -> str:
    if context.sampler is None:
        return ""
    from flow_executors.manager.sampling import spec_to_text

    return spec_to_text(context.sampler)
