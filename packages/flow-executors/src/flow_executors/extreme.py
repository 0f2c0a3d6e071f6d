"""ExtremeScaleExecutor: its options and their meaning. What it does once started is ``extreme_scale``."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, field
from importlib.util import find_spec

from flow_core.errors import ConfigurationError
from flow_core.interfaces.container import Container
from flow_core.interfaces.context import RunContext
from flow_core.interfaces.task_fields import HONOURED_BY_ALL
from flow_core.option_records import about, at_least, documented
from flow_executors.common.block_request import BlockRequest
from flow_executors.common.node_options import PrefetchOptions
from flow_executors.errors import InsufficientMPIRanks as InsufficientMPIRanks
from flow_executors.extreme_scale.errors_of_mpi import missing
from flow_executors.extreme_scale.launch import LAUNCH_CMD, mpiexec_code
from flow_executors.extreme_scale.runtime import ExtremeScaleRuntime
from flow_executors.extreme_scale.world_core import LEAST_RANKS, MOST_RANKS, too_few
from flow_executors.htex import LABEL, PilotExecutor
from flow_executors.launching.node_python import with_pool_name
from flow_executors.runtime import ExecutorRuntime, LaunchPlan
from flow_providers.interfaces.locality import Locality
from flow_providers.interfaces.provider import ExecutionProvider

# Launchers that start a copy on each node, or several on one: each copy would be an MPI job of its own.
_MULTIPLY = (
    "SrunLauncher",
    "SrunMPILauncher",
    "AprunLauncher",
    "JsrunLauncher",
    "MpiExecLauncher",
    "MpiRunLauncher",
    "GnuParallelLauncher",
)


def _only(usual: object, reason: str) -> Callable[[object], str]:
    return lambda value: "" if value == usual else f"must be left out: {reason}"


_IN_CONTAINER = "mpiexec starts the ranks on all nodes, so their container is to be part of launch_cmd"
_BY_RANKS = "each rank but the first has one worker, so ranks_per_node says how many there are"


@documented
@dataclass(eq=False, repr=False)
class ExtremeScaleExecutor(PrefetchOptions, PilotExecutor):
    """Runs tasks on the ranks of one MPI job a block, for blocks of many hundreds of nodes: one connection a block.

    Rank 0 is the manager of all nodes of the block; each other rank has one worker, and gets its tasks over MPI. When a
    rank dies, MPI ends the job: its tasks are made again in the block that replaces it. Needs ``mpi4py`` and an
    ``mpiexec`` on the nodes.

    Raises:
        ConfigurationError: an option has an impossible value.
        InsufficientMPIRanks: a block would have fewer than two ranks.
    """

    label: str = field(default="ExtremeScaleExecutor", metadata=LABEL)
    launch_cmd: str | None = field(
        default=None,
        metadata=about(
            "Template of the command of a block, which is to start all its ranks, such as ``'srun --mpi=pmix -n "
            "{ranks} {python} -P -m {module} {debug} {options}'``; None: the ``mpiexec`` that is on PATH there. Its "
            "fields are the options' names, ``{options}`` (all), ``{debug}``, ``{python}``, ``{module}``, "
            "``{nodes_per_block}``, ``{ranks}`` (of the block) and ``{ranks_per_node}``."
        ),
    )
    _: KW_ONLY
    ranks_per_node: int = field(
        default=1,
        metadata=about(
            "MPI ranks of a node. Each has one worker, but for the first rank of a block, which is its manager.",
            at_least(1),
        ),
    )
    cores_per_worker: float = field(default=1.0, metadata=about(f"To be left out: {_BY_RANKS}.", _only(1, _BY_RANKS)))
    mem_per_worker: float | None = field(
        default=None, metadata=about(f"To be left out: {_BY_RANKS}.", _only(None, _BY_RANKS))
    )
    max_workers: float = field(
        default=math.inf, metadata=about(f"To be left out: {_BY_RANKS}.", _only(math.inf, _BY_RANKS))
    )
    hold_bad_nodes: bool = field(
        default=False,
        metadata=about(
            "To be left out: a node of an MPI job cannot be kept from tasks alone.",
            _only(False, "a node of an MPI job cannot be kept from tasks alone"),
        ),
    )
    container: Container | str | None = field(
        default=None, metadata=about(f"To be left out: {_IN_CONTAINER}.", _only(None, _IN_CONTAINER))
    )
    interchange_port_range: tuple[int, int] = field(
        default=(55000, 56000),
        metadata=about("Without effect: the way to the interchange is no TCP socket.", without_effect=True),
    )

    honours = HONOURED_BY_ALL.union(("priority", "running_time_min", "container", "warn_before_end_s"))
    avoids_nodes = False
    _manager_module = "flow_executors.extreme_scale"

    def start(self, context: RunContext) -> None:
        """Start the interchange and ask for the first blocks. Any thread; waits for the interchange, not for blocks.

        Raises:
            ConfigurationError: an option has an impossible value, or mpi4py is missing where the ranks are to run.
            ExecutorError: it is started already, or the interchange cannot be started.
        """
        local = self.provider is None or self.provider.locality is Locality.THIS_MACHINE
        if local and self._node_python() is None and self.launch_cmd is None and find_spec("mpi4py") is None:
            raise ConfigurationError(f"{self.label}: {missing(sys.executable, 'this machine')}")
        super().start(context)

    @property
    def ranks(self) -> int:
        """Ranks of a block."""
        return self.ranks_per_node * (self.provider.nodes_per_block if self.provider is not None else 1)

    def _make_runtime(self, plan: LaunchPlan, context: RunContext) -> ExecutorRuntime:
        return ExtremeScaleRuntime(plan, context)

    def _managers_per_block(self) -> int:
        return 1 if self.launch_cmd is None else 0

    def _guessed_workers(self) -> int:
        return max(1, self.ranks - 1)

    def _blocks_that_fit(self) -> int:
        return 1

    def _block_request(self, provider: ExecutionProvider) -> BlockRequest:
        return BlockRequest(type(provider).__name__)  # workers are as many as ranks, whatever a node has

    def _template(self) -> str | None:
        return LAUNCH_CMD if self.launch_cmd is None else with_pool_name(self.launch_cmd)

    def _template_fields(self) -> dict[str, object]:
        nodes = self.provider.nodes_per_block if self.provider is not None else 1
        return {
            **super()._template_fields(),
            "mpiexec": mpiexec_code(self.ranks_per_node, nodes),
            "ranks": self.ranks,
            "ranks_per_node": self.ranks_per_node,
        }

    def _check(self) -> None:
        super()._check()
        name = f"{type(self).__name__} {self.label!r}"
        provider = self.provider
        if provider is None:
            return
        if self.ranks > MOST_RANKS:
            raise ConfigurationError(
                f"{name}: ranks_per_node={self.ranks_per_node} on nodes_per_block={provider.nodes_per_block} are "
                f"{self.ranks} ranks: at most {MOST_RANKS} can be told apart. Take more blocks of fewer nodes"
            )
        if self.launch_cmd is not None:
            return
        if self.ranks < LEAST_RANKS:
            raise too_few(
                self.ranks,
                f"a block of {name}",
                f"give it ranks_per_node={LEAST_RANKS} or more, or a provider of several nodes_per_block",
            )
        launcher: object = getattr(provider, "launcher", None)
        while (inner := getattr(launcher, "launcher", None)) is not None:  # wrapped
            launcher = inner
        kind = type(launcher).__name__
        if kind in _MULTIPLY:
            raise ConfigurationError(
                f"{name}: the launcher {kind} of its provider starts a copy on each node, and each would be an MPI job "
                "of its own: give the provider launcher=SimpleLauncher(), as mpiexec reaches all nodes itself"
            )
        if provider.starts_on_each_node and provider.nodes_per_block > 1:
            raise ConfigurationError(
                f"{name}: {type(provider).__name__} starts the command on each of its nodes_per_block="
                f"{provider.nodes_per_block} nodes, and each would be an MPI job of its own: give it nodes_per_block=1"
            )
