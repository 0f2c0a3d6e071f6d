"""The provider of Torque: jobs by ``qsub``, ``qstat`` and ``qdel``."""

from __future__ import annotations

import math
from typing import Annotated

from flow_providers.block_options import (
    CmdTimeout,
    InitBlocks,
    MaxBlocks,
    MinBlocks,
    NodesPerBlock,
    Parallelism,
    Walltime,
    WorkerInit,
)
from flow_providers.cluster.options import (
    Account,
    ByAprun,
    ClusterOptions,
    MemAskedPerNode,
    PBSLines,
    ServersQueue,
    ViaChannel,
)
from flow_providers.cluster.pbs import PBSFamilyProvider, PBSSharedDisk
from flow_providers.jobs.files import JobFiles
from flow_providers.launchers.aprun import AprunLauncher
from flow_providers.option_records import about, documented
from flow_providers.options import checked, record_of


@documented
class TorqueProvider(PBSFamilyProvider):
    """Submits by ``qsub``, asks by ``qstat -f``, cancels by ``qdel``.

    How a job ended is taken from the scheduler, from ``tracejob`` where the server's logs can be read, or from what the
    job's own script left behind.
    """

    label = "torque"
    shares_nodes = True
    package = "flow_providers.cluster.torque"
    default_launcher = AprunLauncher

    @checked
    def __init__(
        self,
        channel: ViaChannel = None,
        account: Account = None,
        queue: ServersQueue = None,
        scheduler_options: PBSLines = "",
        worker_init: WorkerInit = "",
        nodes_per_block: NodesPerBlock = 1,
        init_blocks: InitBlocks = 1,
        min_blocks: MinBlocks = 0,
        max_blocks: MaxBlocks = 100,
        parallelism: Parallelism = 1,
        launcher: ByAprun = None,
        walltime: Walltime = "00:20:00",
        cmd_timeout: CmdTimeout = 120,
        cores_per_node: Annotated[
            int | None,
            about("Cores requested on each node, in FLOW_CORES for the command; None: one for each copy of it."),
        ] = None,
        mem_per_node: MemAskedPerNode = None,
        shared_disk: PBSSharedDisk = "auto",
    ) -> None:
        super().__init__(record_of(ClusterOptions, self))
        self.account = account
        self.queue = queue

    def script_values(self, job: JobFiles, tasks_per_node: int) -> dict[str, object]:
        """Return the values of this scheduler's own directives in the script template."""
        # Torque's mem is for the whole job, not for a node.
        each = self.asked_memory_gb
        total = None if each is None else math.ceil(each * 1024) * self.nodes_per_block
        return {"account": self.account, "queue": self.queue, "mem_mb": total}
