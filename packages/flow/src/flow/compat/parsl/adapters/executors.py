"""Executors with Parsl's options and defaults."""

from __future__ import annotations

import math
from abc import ABCMeta, abstractmethod
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, NoReturn

import flow_executors
from flow.compat.parsl.adapters import blocks
from flow.compat.parsl.adapters.providers import LocalProvider
from flow.compat.parsl.adapters.staging import in_flow
from flow.compat.parsl.adapters.translated import Translated, stated
from flow_core.errors import ConfigurationError
from flow_executors.addresses import candidate_addresses
from flow_providers.interfaces.locality import Locality

# -- the bases, for executors of the user's own


class ParslExecutor(metaclass=ABCMeta):
    """Base of executors of the user's own: ``start``, ``submit(func, resource_specification, *args)``, ``shutdown``."""

    label: str = "undefined"
    run_dir: str = "."
    run_id: str | None = None

    def __init__(self, *, monitoring_messages: object = None, run_dir: str = ".", run_id: str | None = None) -> None:
        self.monitoring_messages = monitoring_messages
        self.run_dir, self.run_id = run_dir, run_id

    def __enter__(self) -> ParslExecutor:
        return self

    def __exit__(self, *_error: object) -> None:
        self.shutdown()

    @abstractmethod
    def start(self) -> None:
        """Start the executor."""

    @abstractmethod
    def submit(
        self, func: Callable[..., Any], resource_specification: dict[str, Any], *args: Any, **kwargs: Any
    ) -> Future[Any]:
        """Run a function; return its future."""

    @abstractmethod
    def shutdown(self) -> None:
        """End the executor."""

    def monitor_resources(self) -> bool:
        """Whether resources of its tasks are sampled."""
        return True


class BlockProviderExecutor(ParslExecutor):
    """Base of executors whose workers come in blocks of a provider: those of Flow are of this kind, too."""


# -- which manager gets the next task


class ManagerSelector(metaclass=ABCMeta):
    """Choice of the manager that gets the next task; Flow's interchange has the two below."""

    name = ""

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class RandomManagerSelector(ManagerSelector):
    """Spreads tasks over managers: the one with the most idle workers first."""

    name = "idle"


class BlockIdManagerSelector(ManagerSelector):
    """Fills blocks in the order in which they came, so that later ones can be given back."""

    name = "block"


def _selector(given: object) -> object:
    if isinstance(given, ManagerSelector) and given.name:
        return given.name
    if isinstance(given, ManagerSelector):
        raise ConfigurationError(
            f"manager_selector={given!r}: Flow's interchange has RandomManagerSelector and BlockIdManagerSelector, and "
            "takes none of one's own"
        )
    return given


# -- the executors


class ThreadPoolExecutor(Translated, flow_executors.ThreadPoolExecutor):
    """Threads of the script."""

    parsl_order = (
        "label", "max_threads", "thread_name_prefix", "storage_access", "working_dir", "remote_monitoring_radio",
    )  # fmt: skip
    parsl_defaults = stated(label="threads", max_threads=2)

    @classmethod
    def _adapt(cls, options: dict[str, Any]) -> None:
        options.pop("remote_monitoring_radio", None)  # events have one way
        if options.get("thread_name_prefix", "") is None:
            del options["thread_name_prefix"]
        if options.get("max_threads", 2) is None:
            del options["max_threads"]
        options["storage_access"] = in_flow(options.get("storage_access"))


class _Blocks(Translated):
    """What executors of blocks share."""

    without_effect = stated(interchange_launch_cmd=None, address_probe_timeout=None, remote_monitoring_radio=None)

    @classmethod
    def _adapt(cls, options: dict[str, Any]) -> None:
        if options.get("provider") is None:
            options["provider"] = LocalProvider()
        provider = options["provider"]
        if options.get("address") is None:
            options.pop("address", None)
            if getattr(provider, "locality", None) is not Locality.THIS_MACHINE:
                # All addresses are tried, as there; asked at each start.
                options["address"] = candidate_addresses
        port = options.pop("worker_port", None)
        if port is not None:
            options["worker_ports"] = (port,)
        if options.get("worker_port_range", ()) is None:
            del options["worker_port_range"]
        if options.get("interchange_port_range", ()) is None:
            del options["interchange_port_range"]
        if "max_workers" in options and options["max_workers"] is None:
            options["max_workers"] = math.inf
        for name in ("working_dir", "worker_logdir_root"):
            if options.get(name) is not None:
                options[name] = str(options[name])
        if isinstance(options.get("available_accelerators"), list):
            options["available_accelerators"] = tuple(options["available_accelerators"])
        if "manager_selector" in options:
            options["manager_selector"] = _selector(options["manager_selector"])
        if callable(options.get("block_error_handler")):
            options["block_error_handler"] = blocks.in_flow(options["block_error_handler"])
        options["storage_access"] = in_flow(options.get("storage_access"))
        command = options.get("launch_cmd")
        if command is not None:
            options["launch_cmd"] = in_flow_command(command)

    # -- attributes that programs read

    @property
    def status_facade(self) -> dict[str, Any]:
        """The states of blocks, by their names."""
        return blocks.statuses(self)

    @property
    def workers_per_node(self) -> int | float:
        """Workers of a node, as far as managers have said it; else 1."""
        offers: list[Any] = self.connected_managers()
        return max((one["worker_count"] for one in offers), default=1)

    @property
    def bad_state_is_set(self) -> bool:
        """Whether the executor takes no more tasks. Flow's take some anew once blocks can be had."""
        return False

    def scale_out_facade(self, n: int) -> list[str]:
        """Add blocks; return their names."""
        return list(self.scale_out(n))  # type: ignore[attr-defined]

    def scale_in_facade(self, n: int, max_idletime: float | None = None) -> list[str]:
        """Release blocks; return their names."""
        return list(self.scale_in(n, max_idletime_s=max_idletime))  # type: ignore[attr-defined]

    def connected_managers(self) -> list[Any]:
        """Return what is known of each manager, as a dict; the interchange is asked what each does."""
        offers = super().connected_managers()  # type: ignore[misc]
        does = {one.manager: one for one in self.manager_states()} if offers else {}  # type: ignore[attr-defined]
        return [blocks.manager_record(one, does.get(one.manager_id)) for one in offers]


_ORDER = (
    "label", "provider", "launch_cmd", "interchange_launch_cmd", "address", "loopback_address", "worker_port",
    "worker_port_range", "interchange_port_range", "storage_access", "working_dir", "worker_debug", "cores_per_worker",
    "mem_per_worker", "max_workers_per_node", "cpu_affinity", "available_accelerators", "prefetch_capacity",
    "heartbeat_threshold", "heartbeat_period", "drain_period", "poll_period", "address_probe_timeout",
    "worker_logdir_root", "manager_selector", "block_error_handler", "encrypted", "remote_monitoring_radio",
)  # fmt: skip


class HighThroughputExecutor(_Blocks, flow_executors.HighThroughputExecutor):
    """Pilot jobs: Flow's executor with Parsl's options and defaults.

    Only ``prefetch_capacity``, where it is not given, is what tasks and workers ask for, and not 0.
    """

    parsl_order = _ORDER
    parsl_defaults = stated(label="HighThroughputExecutor")


class MPIExecutor(_Blocks, flow_executors.HighThroughputExecutor):
    """Tasks of several nodes of a block. Flow's HighThroughputExecutor runs them beside others: as many as their ranks
    have cores for, so that ``max_workers_per_block`` changes nothing."""

    parsl_order = tuple(
        {"cores_per_worker": "max_workers_per_block", "manager_selector": "mpi_launcher"}.get(name, name)
        for name in _ORDER
        if name not in ("mem_per_worker", "max_workers_per_node", "cpu_affinity", "available_accelerators")
    )
    parsl_defaults = stated(label="MPIExecutor", mpi_launcher="mpiexec")
    without_effect = stated(**_Blocks.without_effect, max_workers_per_block=1)

    @classmethod
    def _adapt(cls, options: dict[str, Any]) -> None:
        super()._adapt(options)
        if options.get("mpi_launcher") == "mpiexec":
            options["mpi_launcher"] = "auto"  # which is the mpiexec of the node


DEFAULT_LAUNCH_CMD = "{python} -m flow_executors.manager {options}"
"""The template of a manager's command, with Flow's fields."""

VALID_LAUNCHERS = ("srun", "aprun", "mpiexec")


class LowLatencyExecutor(_Blocks, flow_executors.LowLatencyExecutor):
    """Short tasks at low latency, which Parsl had until 1.0."""

    parsl_order = ("label", "provider", "launch_cmd", "address", "worker_port", "worker_port_range")


class ExtremeScaleExecutor(_Blocks, flow_executors.ExtremeScaleExecutor):
    """Tasks on the ranks of one MPI job, which Parsl had until 1.0."""

    parsl_order = ("label", "provider", "launch_cmd", "address", "worker_ports", "worker_port_range")


class Controller:
    """The controller of IPython engines: of its options only ``public_ip`` counts, as the address of the script."""

    def __init__(
        self,
        public_ip: str | None = None,
        interfaces: str | None = None,
        port: int | None = None,
        port_range: str | None = None,
        reuse: bool = False,
        log: bool = True,
        ipython_dir: str = "~/.ipython",
        mode: str = "auto",
        profile: str | None = "default",
    ) -> None:
        self.public_ip, self.interfaces, self.port, self.port_range = public_ip, interfaces, port, port_range
        self.reuse, self.log, self.ipython_dir, self.mode, self.profile = reuse, log, ipython_dir, mode, profile


class IPyParallelExecutor(_Blocks, flow_executors.HighThroughputExecutor):
    """IPython engines, which Parsl had until 1.0: here the workers of a HighThroughputExecutor."""

    parsl_order = (
        "provider", "label", "working_dir", "controller", "container_image", "engine_dir", "storage_access",
        "engine_debug_level", "workers_per_node", "managed",
    )  # fmt: skip
    parsl_defaults = stated(label="ipp")
    without_effect = stated(engine_dir=None, engine_debug_level=None)

    @classmethod
    def _adapt(cls, options: dict[str, Any]) -> None:
        options.setdefault("max_workers", options.pop("workers_per_node", 1))
        image = options.pop("container_image", None)
        if image is not None:
            options["container"] = image
        controller = options.pop("controller", None)
        if isinstance(controller, Controller) and controller.public_ip is not None:
            options["address"] = controller.public_ip
        super()._adapt(options)


for _one in (IPyParallelExecutor, HighThroughputExecutor, MPIExecutor, LowLatencyExecutor, ExtremeScaleExecutor):
    BlockProviderExecutor.register(_one)
    BlockProviderExecutor.register(_one.__mro__[3])
ParslExecutor.register(ThreadPoolExecutor)
ParslExecutor.register(flow_executors.ThreadPoolExecutor)


def in_flow_command(command: str) -> str:
    """Return a template of a manager's command: what calls Parsl's worker pool calls Flow's manager.

    What stands before it, such as the call of a container, stays.
    """
    for name in ("process_worker_pool.py", "mpi_worker_pool.py"):
        before, found, _after = command.partition(name)
        if found:
            return f"{before}{DEFAULT_LAUNCH_CMD}"
    return command


# -- those that Flow does not have


class _NotOffered:
    """An executor that Flow may not have: its name can be imported, so that a file of configurations can be read."""

    instead = "use HighThroughputExecutor, with the same provider"

    def __new__(cls, *args: object, **options: object) -> Any:
        """Return the executor of this name of the flow-executors that is installed, where it has one."""
        offered = getattr(flow_executors, cls.__name__, None)
        return super().__new__(cls) if offered is None else offered(*args, **options)

    def __init__(self, *_args: object, **_options: object) -> None:
        self._refuse()

    @classmethod
    def _refuse(cls) -> NoReturn:
        raise ConfigurationError(f"Flow has no {cls.__name__}: {cls.instead}")


class WorkQueueExecutor(_NotOffered):
    """Work Queue of CCTools."""


class TaskVineExecutor(_NotOffered):
    """TaskVine of CCTools."""


class FluxExecutor(_NotOffered):
    """Flux inside of a job."""

    instead = "use HighThroughputExecutor, whose tasks of several nodes are started by any launcher of MPI"


class RadicalPilotExecutor(_NotOffered):
    """RADICAL-Pilot."""


class GlobusComputeExecutor(_NotOffered):
    """Globus Compute endpoints."""


class TurbineExecutor(_NotOffered):
    """Swift/T, which Parsl had until 1.0."""

    instead = "use ExtremeScaleExecutor, which runs tasks on the ranks of one MPI job"
