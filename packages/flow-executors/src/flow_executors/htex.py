"""HighThroughputExecutor: its options and their meaning. What it does once started is ``runtime.ExecutorRuntime``."""

from __future__ import annotations

import math
import os
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, InitVar, dataclass, field, replace
from typing import Final, NoReturn

from flow_core.errors import ConfigurationError, ExecutorClosed, ExecutorError, ScalingFailed
from flow_core.interfaces.call import Call, TryKey
from flow_core.interfaces.container import Container
from flow_core.interfaces.context import RunContext
from flow_core.interfaces.executor import BlockExecutor, ShutdownReport
from flow_core.interfaces.scaling import BlockInfo, Load
from flow_core.interfaces.staging import Staging
from flow_core.interfaces.task_fields import HONOURED_BY_ALL
from flow_core.interfaces.waiting import Cause
from flow_core.option_records import (
    about,
    above,
    at_least,
    documented,
    one_of,
    options_of,
    without_effect,
)
from flow_core.representation import expression
from flow_core.without_effect import reason_of, warn_of
from flow_executors.client.interchange_process import is_loopback
from flow_executors.common.block_request import BlockRequest, contradictions, expected_use
from flow_executors.common.node_options import NodeOptions, PrefetchOptions
from flow_executors.launching.node_python import PYTHON, NodePython, with_pool_name
from flow_executors.manager.options import ManagerOptions
from flow_executors.mpi.launchers import AUTO, LAUNCHERS, option_text
from flow_executors.pending_reasons import causes_of
from flow_executors.runtime import ExecutorRuntime, LaunchPlan
from flow_executors.scaling.failures import BlockErrorHandler
from flow_executors.serialize.script_code import chosen_module
from flow_executors.wire.commands import ManagerActivity
from flow_executors.wire.messages import Registration
from flow_providers.interfaces.job_state import JobState
from flow_providers.interfaces.locality import Locality
from flow_providers.interfaces.provider import ExecutionProvider, NodeUse
from flow_providers.option_checks import check_options

TYPE_CHECKING = False
if TYPE_CHECKING:
    from flow_executors.launching.container_launch import ContainerPlan

# Blocks that the default provider may start where workers of one do not use all cores of this machine.
_LOCAL_BLOCKS = 10
_LOCAL = "127.0.0.1"
# Ports to listen at where none are chosen: first, and one after the last. To change it opens the TCP port, see
# ``_needs_network``.
_PORT_RANGE = (54000, 55000)


_LAST_PORT = 65535


def _blank(value: object) -> str:
    return "must name something: leave it out for the default" if isinstance(value, str) and not value.strip() else ""


def _wrong_address(value: object) -> str:
    """Refuse what cannot be the name of a host; whether one resolves, only the nodes know."""
    well = not isinstance(value, str) or (value and not any(letter.isspace() for letter in value))
    return "" if well else "must be the name or the address of a host, such as '10.0.0.1', without blanks"


def _wrong_launcher(value: object) -> str:
    well = not isinstance(value, str) or value in (AUTO, *LAUNCHERS)
    return "" if well else f"must be one of {', '.join(map(repr, (AUTO, *LAUNCHERS)))}, or a function"


def _wrong_ports(value: object) -> str:
    well = not isinstance(value, tuple) or (value and all(0 < port <= _LAST_PORT for port in value))
    return "" if well else f"must be ports from 1 to {_LAST_PORT}, such as (54000,)"


def _wrong_range(value: object) -> str:
    well = not isinstance(value, tuple) or 0 < value[0] < value[1] <= _LAST_PORT + 1
    return "" if well else f"must be a first port, and a greater one of at most {_LAST_PORT + 1} that follows the last"


LABEL: Final = about("Name of the executor, unique in a Config; names its directory of logs.")


@dataclass(eq=False, repr=False)
class PilotOptions(NodeOptions):
    """The options that all executors of blocks have. The first six may be given by position."""

    label: str = field(default="", metadata=LABEL)
    provider: ExecutionProvider | None = field(
        default=None,
        metadata=about(
            "Where blocks of nodes come from; None: a ``LocalProvider`` of as many blocks as use the cores of this "
            "machine once: one, unless ``max_workers`` is less.",
            untyped=True,
        ),
    )
    launch_cmd: str | None = field(
        default=None,
        metadata=about(
            "Template of a manager's command; None for the default. Its fields are the options' names, ``{options}`` "
            "(all), ``{debug}``, ``{python}`` and ``{nodes_per_block}``."
        ),
    )
    address: str | Callable[[], str | Sequence[str]] = field(
        default=_LOCAL,
        metadata=about(
            "Name or address at which workers reach this machine, or a function that gives it, or several of them, "
            "called at each start (``address_by_query``, ``addresses_with_query``). While it is the default and the "
            "provider's nodes are others, workers try every address of this machine and take the one that answers.",
            _wrong_address,
        ),
    )
    worker_ports: tuple[int, ...] | None = field(
        default=None,
        metadata=about("Exact ports to listen at (the first that is free); overrides the range.", _wrong_ports),
    )
    worker_port_range: tuple[int, int] = field(
        default=_PORT_RANGE, metadata=about("First port, and the one after the last.", _wrong_range)
    )
    _: KW_ONLY
    storage_access: Sequence[Staging] | None = field(
        default=None, metadata=about("Staging methods that replace the defaults.")
    )
    worker_debug: bool = field(default=False, metadata=about("Write more to the logs."))
    max_workers_per_node: InitVar[float | None] = None
    managed: bool = field(
        default=True,
        metadata=about("Whether the kernel shuts it down, and scales it where its blocks are not fixed."),
    )
    worker_logdir_root: str | None = field(
        default=None,
        metadata=about("Directory for the nodes' logs, where the run's directory cannot be reached from them."),
    )
    available_accelerators: int | Sequence[str] = field(
        default=(),
        metadata=about(
            "Names of a node's accelerators, or their number: one for each worker; repeat a name to share it.",
            at_least(0),
        ),
    )
    block_error_handler: bool | BlockErrorHandler | None = field(
        default=True,
        metadata=about(
            "False: failed blocks are tried again for ever; or a function that decides, which gets the executor and "
            "the failed blocks, and returns the error of the tasks, or None to go on."
        ),
    )
    manager_selector: str = field(
        default="idle",
        metadata=about(
            "``idle`` spreads tasks over nodes, ``block`` fills the first block first.", one_of("idle", "block")
        ),
    )
    block_start_timeout: float = field(
        default=900.0,
        metadata=about(
            "Seconds that the job of a block may run before its first manager connects; then it is cancelled, and "
            "counts as failed.",
            above(0),
        ),
    )
    recovery_timeout: float = field(
        default=600.0,
        metadata=about(
            "Seconds that tasks of an executor that has had workers wait, with no block left, while one attempt to "
            "start another after the other fails; then they fail with ``ExecutorBroken``. An executor that never had "
            "any tells it after ``max(1, init_blocks)`` failures in a row. Either way a later call makes a fresh "
            "attempt.",
            above(0),
        ),
    )
    python: str | None = field(
        default=None,
        metadata=about(
            "Python that runs the managers and workers of nodes: a command or a path there, or ``$NAME`` for what a "
            "variable there holds. None: on this machine the script's own; elsewhere the first with Flow of "
            "``$FLOW_PYTHON``, ``python3`` and ``python``, after ``worker_init``.",
            _blank,
        ),
    )
    bootstrap: bool | str = field(
        default="auto",
        metadata=about(
            "Whether Flow itself is sent to nodes, kept there by its digest, and used with their Python of the "
            'script\'s minor version: ``"auto"`` where they have none or another, True always, False never.',
            one_of("auto", True, False),
        ),
    )
    environment: str | None = field(
        default=None,
        metadata=about(
            "Packed environment (a tar file of conda-pack or venv-pack) whose Python is taken, or lock file "
            "(``uv.lock``, ``pylock.toml``) whose packages are added; sent to each node once."
        ),
    )
    max_transfer_bytes: int = field(
        default=10 << 30,
        metadata=about(
            "Most bytes that the files of one task may have together, each way, where its node does not see the "
            "script's disk and they go over the connection of its manager.",
            at_least(0),
        ),
    )
    hold_bad_nodes: bool = field(
        default=True,
        metadata=about(
            "Whether a node gets no more tasks on which fails, or is ten times slower, what other nodes run, and "
            "whether what it could not import is run elsewhere."
        ),
    )
    container: Container | str | None = field(
        default=None,
        metadata=about(
            "Image in which the managers and workers of nodes run: a ``Container``, or the name, path or URL of an "
            "image. Flow binds what it needs there, and is sent where the image has none of its own."
        ),
    )
    code: str | Sequence[str] | None = field(
        default="auto",
        metadata=about(
            'The script\'s own modules that go to nodes which do not see its files: ``"auto"`` for all that it has '
            "imported, or that lie beside it; a list of names, or of paths of modules and packages; None for none."
        ),
    )


class PilotExecutor(PilotOptions, BlockExecutor):
    """What executors on blocks of nodes have in common: blocks from a provider, a manager a node, workers of it."""

    provider: ExecutionProvider | None  # again, since the interface knows no providers

    _manager_module = "flow_executors.manager"
    _blocks_are_fixed = ""
    """Why no strategy ever adds a block; empty where one may."""

    kills = True
    avoids_nodes = True
    honours = HONOURED_BY_ALL.union(
        ("cores", "memory", "gpus", "priority", "running_time_min", "container", "warn_before_end_s")
    )
    prefetch_capacity: int | None = 0
    """Most tasks that a manager takes beyond its workers; None for as many as is good."""
    drain_period: float | None = None
    """Seconds after which a manager takes no more tasks and leaves; None for never."""
    mpi_launcher: str | Callable[[Sequence[str], Sequence[int]], str | Sequence[str]] = AUTO
    """What starts the ranks of a task."""

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"{type(self).__name__} {self.label!r} can be neither pickled nor copied: it has threads and locks of its "
            "own. Make another one by the same call, which repr() shows, or hand on a function that does"
        )

    def __post_init__(self, max_workers_per_node: float | None) -> None:
        if max_workers_per_node is not None:
            if self.max_workers not in (math.inf, max_workers_per_node):
                raise ConfigurationError(
                    f"{type(self).__name__} {self.label!r}: max_workers={self.max_workers!r} and max_workers_per_node="
                    f"{max_workers_per_node!r} are two names of one option: give one"
                )
            self.max_workers = max_workers_per_node
        chosen = self.provider
        if chosen is None:
            self.provider = _local_provider()
        self._runtime: ExecutorRuntime | None = None
        self._report = ShutdownReport()
        if isinstance(self.container, str):
            self.container = Container(self.container)
        self._check()
        if chosen is None:
            # Made again after the check: how many blocks fit follows from options that are known to be valid only now.
            self.provider = _local_provider(self._blocks_that_fit())
        warn_of(f"{type(self).__name__} {self.label!r}", self.ineffective_options())

    def ineffective_options(self) -> list[str]:
        """Return a sentence for each option that was given and changes nothing, or that its blocks do not allow for."""
        sentences = [
            f"{option.name}={getattr(self, option.name)!r} has no effect: {reason_of(option.documentation)}"
            for option in options_of(self)
            if option.name in without_effect(self)
        ]
        if self.worker_ports is not None and self.worker_port_range != _PORT_RANGE:
            sentences.append(f"worker_port_range={self.worker_port_range!r} has no effect beside worker_ports")
        if not self.carries_files and self.max_transfer_bytes != PilotOptions.max_transfer_bytes:
            sentences.append(
                f"max_transfer_bytes={self.max_transfer_bytes!r} has no effect: the nodes see the script's files"
            )
        if (
            self.python is not None
            and self.launch_cmd is not None
            and "{python}" not in with_pool_name(self.launch_cmd)
        ):
            sentences.append(f"python={self.python!r} has no effect: launch_cmd has no {{python}}")
        provider = self.provider
        if provider is None:
            return sentences
        if self._blocks_are_fixed:
            fixed = {"min_blocks": max(provider.init_blocks, 0), "parallelism": 1}
            sentences += [
                f"{name}={getattr(provider, name)!r} of its provider has no effect with {self._blocks_are_fixed}"
                for name, usual in fixed.items()
                if getattr(provider, name) > usual or (name == "parallelism" and provider.parallelism != usual)
            ]
        return [*sentences, *contradictions(self._block_request(provider))]

    def _block_request(self, provider: ExecutionProvider) -> BlockRequest:
        # Not below what wraps it: that may be what starts copies on the other nodes.
        launcher = type(getattr(provider, "launcher", None)).__name__
        first_alone = launcher == "SingleNodeLauncher" and not provider.starts_on_each_node
        return BlockRequest(
            type(provider).__name__,
            float(self.cores_per_worker),
            self.mem_per_worker,
            self.max_workers,
            provider.cores_per_node,
            provider.mem_per_node,
            provider.shares_nodes,
            provider.asks_for_use,
            provider.nodes_per_block,
            first_alone,
        )

    def __repr__(self) -> str:
        return expression(self, [option.name for option in options_of(self)])

    @property
    def carries_files(self) -> bool:  # type: ignore[override]  # of each instance, by where its nodes are
        """Whether its nodes may not see the script's disk: then files by path go over their connection."""
        return self.provider is None or not self._is_local()

    @property
    def task_limits(self) -> dict[str, float]:  # type: ignore[override]  # by its blocks and nodes, as far as they are known
        """The most memory (of the largest node seen) and walltime (of a block) that a task can have."""
        walltime_s = self.provider.walltime_s if self.provider is not None else None
        memory_mb = self._runtime.client.directory.most_memory_mb if self._runtime is not None else 0
        return {name: float(most) for name, most in (("memory", memory_mb), ("walltime", walltime_s)) if most}

    @property
    def max_workers_per_node(self) -> float:
        """Most workers of a node: ``max_workers`` by its other name."""
        return self.max_workers

    @max_workers_per_node.setter
    def max_workers_per_node(self, value: float) -> None:
        """Set ``max_workers`` by its other name."""
        self.max_workers = value

    # -- Executor

    def start(self, context: RunContext) -> None:
        """Start the interchange and ask for the first blocks. Any thread; waits for the interchange, not for blocks.

        Raises:
            ConfigurationError: an option has an impossible value.
            ExecutorError: it is started already, or the interchange cannot be started.
        """
        if self._runtime is not None:
            raise ExecutorError(f"executor {self.label!r} is started already: a Config can be loaded once at a time")
        self._check()
        for sentence in self.ineffective_options():
            context.logger.warning("%s: %s", self.label, sentence)
        self._check_scaling(context)
        # Imported here: the package's own module is above this one.
        from flow_executors import __version__

        if self.provider is not None and self.provider.asks_for_use:
            self.provider.expected_use = NodeUse(*expected_use(self._block_request(self.provider)))
        self._runtime = self._make_runtime(
            LaunchPlan(
                label=self.label,
                addresses=self._addresses(),
                network=self._needs_network(),
                ports=tuple(self.worker_ports) if self.worker_ports is not None else None,
                port_range=self.worker_port_range,
                heartbeat_period_s=self.heartbeat_period,
                heartbeat_threshold_s=self.heartbeat_threshold,
                sleep_threshold_s=self.sleep_threshold or 0.0,
                debug=self.worker_debug,
                packed=self.manager_selector == "block",
                provider=self.provider,
                block_error_handler=self.block_error_handler,
                block_start_timeout_s=self.block_start_timeout,
                recovery_timeout_s=self.recovery_timeout,
                command=self._command,
                compares_code=self.launch_cmd is not None or self._node_python() is not None,
                nodes=self._node_python(),
                code_travels=self._code_travels(),
                code=None if isinstance(self.code, str) or self.code is None else tuple(self.code),
                managers=self._managers_per_block(),
                guessed_workers=self._guessed_workers(),
                cores_per_worker=float(self.cores_per_worker),
                hold_nodes=self.hold_bad_nodes,
                local_cores=(os.cpu_count() or 1) if self._is_local() else 0,
                software=__version__,
                max_transfer_bytes=self.max_transfer_bytes,
                container=self._container_plan(),
            ),
            context,
        )

    def submit(self, key: TryKey, call: Call, /) -> None:
        """Send one try to the workers; its outcome comes through the listener. Any thread; does not wait.

        Raises:
            ExecutorClosed: the executor is not started, or was shut down.
            ExecutorBroken: its interchange cannot be kept running.
        """
        runtime = self._runtime
        if runtime is None:
            raise self._not_started()
        runtime.client.submit(key, call)

    def flush(self) -> None:
        """Send tries that were gathered for a common message. Any thread."""
        if self._runtime is not None:
            self._runtime.client.flush()

    def cancel(self, keys: Sequence[TryKey], /, *, kill: bool = False) -> None:
        """Ask to cancel tries, with ``kill`` also those that run; their outcomes tell what became of it. Any thread."""
        if self._runtime is not None:
            self._runtime.client.cancel(keys, kill)

    def withdraw(self, key: TryKey, /) -> bool | None:
        """Cancel a try that has not begun; False if it has, None if it ends without, or nobody says in time."""
        return None if self._runtime is None else self._runtime.client.withdraw(key)

    def load(self) -> Load:
        """Return how many tries wait and run, and the slots and blocks there are; all 0 where it is not started."""
        return self._runtime.load() if self._runtime is not None else Load()

    def why_waiting(self, key: TryKey, /, *, timeout_s: float = 2.0) -> Sequence[Cause]:
        """Say all that keeps a try from being done: tasks ahead of it, resources, blocks that have no worker yet."""
        runtime = self._runtime
        return () if runtime is None else causes_of(runtime, key, timeout_s)

    def shutdown(self, timeout_s: float) -> ShutdownReport:
        """End the interchange and cancel all blocks."""
        # Taken out first: a second call returns the first one's report, and nothing is submitted meanwhile.
        runtime, self._runtime = self._runtime, None
        if runtime is not None:
            self._report = runtime.close(timeout_s)
        return self._report

    # -- BlockExecutor

    def scale_out(self, blocks: int = 1) -> Sequence[str]:
        """Ask the provider for blocks; return their ids."""
        runtime = self._started()
        if runtime.scaler is None:
            raise ScalingFailed(f"executor {self.label} has no provider")
        return runtime.scaler.scale_out(blocks)

    def scale_in(
        self,
        blocks: int | None = None,
        block_ids: Sequence[str] = (),
        *,
        max_idletime_s: float | None = None,
        timeout_s: float = 60.0,
    ) -> Sequence[str]:
        """Drain and give back up to so many blocks, or the blocks named; return their ids."""
        runtime = self._started()
        # A text is a sequence of letters, each of which would be taken for a block.
        if isinstance(block_ids, str):
            raise ConfigurationError(f"scale_in takes a list of block ids, not the text {block_ids!r}: [{block_ids!r}]")
        if block_ids:
            return runtime.drain(block_ids, max_idletime_s)
        if runtime.scaler is None or not blocks:
            return ()
        return runtime.scaler.scale_in(blocks, max_idletime_s=max_idletime_s, timeout_s=timeout_s)

    def block_infos(self) -> list[BlockInfo]:
        """Return all blocks so far, with the workers that are connected of each."""
        runtime = self._runtime
        if runtime is None or runtime.scaler is None:
            return []
        workers = Counter[str]()
        for manager in self.connected_managers():
            workers[manager.block] += manager.workers
        return [replace(one, workers=workers[one.block]) for one in runtime.scaler.infos()]

    def most_blocks(self) -> int | None:
        """Return ``max_blocks`` of the provider."""
        return None if self.provider is None else self.provider.max_blocks

    # -- what there is

    def hold_worker(self, worker_id: str) -> None:
        """Give no more tasks to a manager (by its name, see ``connected_managers``); what it has it finishes."""
        runtime = self._started()
        if not runtime.client.command("hold", managers=(worker_id,)).blocks:
            names = ", ".join(offer.manager_id for offer in self.connected_managers()) or "none"
            raise ExecutorError(f"no manager {worker_id!r} is connected to {self.label}; connected: {names}")

    def connected_managers(self) -> list[Registration]:
        """Return what each connected manager offers."""
        return list(self._runtime.client.directory.managers.values()) if self._runtime is not None else []

    def manager_states(self, timeout_s: float = 10.0) -> list[ManagerActivity]:
        """Return what each connected manager has and takes: tasks, idle time, whether it drains or is held.

        Args:
            timeout_s: Seconds that the interchange may take to answer.

        Raises:
            ExecutorError: the executor was not started, or no answer came in time.
        """
        return list(self._started().client.command("managers", timeout_s=timeout_s).managers or ())

    def held_nodes(self) -> dict[str, str]:
        """Return the nodes that get no tasks, with the reasons."""
        keeper = self._runtime.keeper if self._runtime is not None else None
        return dict(keeper.reasons()) if keeper is not None else {}

    def free_node(self, node: str) -> bool:
        """Let a node that is held have tasks again, in this run and later ones; False if it is not held."""
        keeper = self._runtime.keeper if self._runtime is not None else None
        return keeper.free(node) if keeper is not None else False

    def connected_blocks(self) -> list[str]:
        """Return the ids of the blocks that have a manager connected."""
        return self._runtime.client.directory.blocks() if self._runtime is not None else []

    def outstanding(self) -> int:
        """Return how many tasks have no outcome yet."""
        return self._runtime.client.outstanding if self._runtime is not None else 0

    def status(self) -> dict[str, JobState]:
        """Return the state of every block by its id."""
        scaler = self._runtime.scaler if self._runtime is not None else None
        return dict(scaler.blocks()) if scaler is not None else {}

    # -- how

    def _make_runtime(self, plan: LaunchPlan, context: RunContext) -> ExecutorRuntime:
        return ExecutorRuntime(plan, context)

    def _started(self) -> ExecutorRuntime:
        if self._runtime is None:
            raise self._not_started()
        return self._runtime

    def _not_started(self) -> ExecutorClosed:
        return ExecutorClosed(f"the executor {self.label} is not started, or was shut down")

    def _is_local(self) -> bool:
        provider = self.provider
        return provider is None or (
            provider.label == "local" and bool(getattr(getattr(provider, "channel", None), "is_local", True))
        )

    def _needs_network(self) -> bool:
        """Whether managers may come from elsewhere, or a user's own launch line may want a port: else none is open."""
        chosen = self.address != _LOCAL or self.worker_ports is not None or self.worker_port_range != _PORT_RANGE
        return chosen or self.launch_cmd is not None or self.provider is None or not self._is_local()

    def _addresses(self) -> tuple[str, ...]:
        address = self.address() if callable(self.address) else self.address
        found = (address,) if isinstance(address, str) else tuple(address)
        if not found or any(map(_wrong_address, found)):
            raise ConfigurationError(
                f"{type(self).__name__} {self.label!r}: address={self.address!r} gave {address!r}: it "
                f"{_wrong_address('')}, or several of them"
            )
        if not isinstance(address, str):
            return found
        if address != _LOCAL or self._is_local():
            return (address,)
        from flow_executors.addresses import candidate_addresses

        return candidate_addresses() or (address,)

    def _managers_per_block(self) -> int:
        """Return how many managers start in a block; 0 where a user's own launcher or options may start more."""
        provider = self.provider
        launcher: object = getattr(provider, "launcher", None)
        while (inner := getattr(launcher, "launcher", None)) is not None:  # wrapped
            launcher = inner
        ours = (
            type(launcher).__module__.startswith("flow_providers.")
            and not getattr(launcher, "overrides", "")
            and getattr(launcher, "task_blocks", None) is None
        )
        return provider.nodes_per_block if provider is not None and ours and self.launch_cmd is None else 0

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

    def _blocks_that_fit(self) -> int:
        """Return how many blocks use the cores, and accelerators, of this machine once."""
        if self._accelerators():
            return 1
        cores = self._guessed_workers() * self.cores_per_worker
        return max(1, min(_LOCAL_BLOCKS, int((os.cpu_count() or 1) / cores)))

    def _accelerators(self) -> tuple[str, ...]:
        given = self.available_accelerators
        return tuple(map(str, range(given))) if isinstance(given, int) else tuple(given)

    def _command(self, block: str, port: int, local: str, context: RunContext) -> str:
        options = self._manager_options(block, port, local, context)
        # In a container signals come to the process that was started, not to a group.
        alone = "exec " if self.container is not None and self.launch_cmd is None else ""
        return alone + options.command(
            self._template(),
            python=PYTHON if self._node_python() is not None else None,
            module=self._manager_module,
            extra=self._template_fields(),
        )

    def _template(self) -> str | None:
        """Return the template of a manager's command; None for the default."""
        return with_pool_name(self.launch_cmd) if self.launch_cmd is not None else None

    def _template_fields(self) -> dict[str, object]:
        """Return the fields of the template that are no options of managers."""
        return {"nodes_per_block": self.provider.nodes_per_block if self.provider is not None else 1}

    def _code_travels(self) -> bool:
        """Tell whether nodes may need the script's own modules from here."""
        if self.code is None:
            return False
        return self.code != "auto" or self.provider is None or self.provider.locality is not Locality.THIS_MACHINE

    def _node_python(self) -> NodePython | None:
        """Return how nodes come to their Python; None where it is the script's own, on this machine."""
        locality = self.provider.locality if self.provider is not None else Locality.THIS_MACHINE
        container = self._container()
        if container is not None:
            python = container.python or self.python
            return NodePython(python, self.bootstrap, self.environment, drivers="", in_image=True)
        chosen = self.python is not None or self.environment is not None or self.bootstrap is True
        if locality is Locality.THIS_MACHINE and not chosen:
            return None
        drivers = sys.executable if locality is not Locality.ELSEWHERE else ""
        return NodePython(self.python, self.bootstrap, self.environment, drivers)

    def _container_plan(self) -> ContainerPlan | None:
        container = self._container()
        if container is None:
            return None
        # Imported here: most scripts have no containers.
        from flow_executors.launching.container_launch import ContainerPlan

        made = [place for place in (self.worker_logdir_root, self.working_dir) if place and os.path.isabs(place)]
        return ContainerPlan(container, made=tuple(made), gpus=bool(self._accelerators()))

    def _container(self) -> Container | None:
        return Container(self.container) if isinstance(self.container, str) else self.container

    def _manager_options(self, block: str, port: int, local: str, context: RunContext) -> ManagerOptions:
        provider, addresses = self.provider, self._addresses()
        if local and all(map(is_loopback, addresses)):
            addresses = (*addresses, local) if port else (local,)
        shared = {option.name: getattr(self, option.name) for option in options_of(NodeOptions)}
        return ManagerOptions(
            self.label,
            context.run_id,
            block,
            addresses,
            port,
            logdir=self._logdir(context),
            accelerators=" ".join(self._accelerators()),
            mpi_launcher=option_text(self.mpi_launcher),
            sampler=_sampler_text(context),
            walltime=float((provider.walltime_s if provider is not None else None) or 0.0),
            debug=self.worker_debug,
            prefetch_capacity=self.prefetch_capacity,
            drain_period=self.drain_period,
            **shared,
        )

    def _logdir(self, context: RunContext) -> str:
        if self.worker_logdir_root is None:
            return str(context.executor_dir.absolute())
        return os.path.join(self.worker_logdir_root, context.run_dir.name, self.label)

    def _check(self) -> None:
        name = f"{type(self).__name__} {self.label!r}"
        check_options(self, name, ConfigurationError)
        provider: object = self.provider
        if isinstance(provider, type):
            kind = provider.__name__
            raise ConfigurationError(f"{name}: option provider is the class {kind}: did you mean {kind}()?")
        if not isinstance(self.provider, ExecutionProvider):
            raise ConfigurationError(f"{name}: option provider={self.provider!r} is no provider")
        if not self.label or os.sep in self.label or self.label in (".", ".."):
            raise ConfigurationError(f"{name}: label must be a name that can be a directory")
        if not self.heartbeat_period < self.heartbeat_threshold:
            raise ConfigurationError(
                f"{name}: heartbeat_period ({self.heartbeat_period}) must be below heartbeat_threshold "
                f"({self.heartbeat_threshold})"
            )
        if self.environment is not None and (why := _why_no_environment(self.environment)):
            raise ConfigurationError(f"{name}: environment={self.environment!r} cannot be sent to nodes: {why}")
        container = self._container()
        if container is not None and container.python is not None and self.python not in (None, container.python):
            raise ConfigurationError(
                f"{name}: python={self.python!r} and python={container.python!r} of its container both name the Python "
                "of the image: give one"
            )
        self._check_template(name)
        self._check_code(name)
        self._check_blocks(name)

    def _check_template(self, name: str) -> None:
        """Fill ``launch_cmd`` once, with what is known: a field that does not exist would show with the first block."""
        if self.launch_cmd is None:
            return
        shared = {option.name: getattr(self, option.name) for option in options_of(NodeOptions)}
        try:
            ManagerOptions(self.label, "", "0", (), 0, **shared).command(
                self._template(), module=self._manager_module, extra=self._template_fields()
            )
        except ConfigurationError as error:
            raise ConfigurationError(f"{name}: {error}") from None
        except ValueError as error:  # of a format code
            raise ConfigurationError(f"{name}: launch_cmd={self.launch_cmd!r} is no template: {error}") from None

    def _check_code(self, name: str) -> None:
        if self.code is None or self.code == "auto":
            return
        if isinstance(self.code, str):
            raise ConfigurationError(f"{name}: code must be 'auto', None or a list, not {self.code!r}: [{self.code!r}]")
        for one in self.code:
            if not chosen_module(one)[1]:
                raise ConfigurationError(f"{name}: code={one!r} is neither a path of a module nor the name of one")

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


@documented
@dataclass(eq=False, repr=False)
class HighThroughputExecutor(PrefetchOptions, PilotExecutor):
    """Runs tasks on worker processes of many nodes: an interchange here, a manager a node, blocks from a provider.

    Raises:
        ConfigurationError: an option has an impossible value.
    """

    honours = PilotExecutor.honours | {
        "nodes",
        "ranks_per_node",
        "ranks",
        "cores_per_rank",
        "gpus_per_rank",
        "exclusive",
    }
    label: str = field(default="HighThroughputExecutor", metadata=LABEL)
    _: KW_ONLY
    mpi_launcher: str | Callable[[Sequence[str], Sequence[int]], str | Sequence[str]] = field(
        default=AUTO,
        metadata=about(
            "What starts the ranks of tasks that have some: ``auto`` (the node's mpiexec, whichever MPI it is of, or "
            "srun, aprun, jsrun), ``openmpi``, ``mpich``, ``intelmpi``, ``srun``, ``aprun``, ``jsrun``, or a function "
            "that gets the names of the nodes and the ranks of each, on the first node, and returns what stands "
            "before the program.",
            _wrong_launcher,
        ),
    )
    interchange_port_range: tuple[int, int] = field(
        default=(55000, 56000),
        metadata=about("Without effect: the way to the interchange is no TCP socket.", without_effect=True),
    )
    poll_period: float = field(default=10.0, metadata=about("Without effect: nothing polls.", without_effect=True))
    suppress_failure: bool = field(
        default=True,
        metadata=about("Without effect: failures of managers never end the interchange.", without_effect=True),
    )
    encrypted: bool = field(
        default=True,
        metadata=about(
            "Without effect: all connections are encrypted, which costs nothing measurable.", without_effect=True
        ),
    )
    loopback_address: str = field(
        default=_LOCAL,
        metadata=about("Without effect: the way within this machine is no TCP socket.", without_effect=True),
    )


def _local_provider(max_blocks: int = 1) -> ExecutionProvider:
    from flow_providers.local.provider import LocalProvider

    return LocalProvider(max_blocks=max_blocks)


def _why_no_environment(path: str) -> str:
    # Imported here: only who sends environments has use for what handles archives.
    from flow_executors.launching.packed_environment import check

    return check(path)


def _sampler_text(context: RunContext) -> str:
    if context.sampler is None:
        return ""
    from flow_executors.manager.node import spec_to_text

    return spec_to_text(context.sampler)
