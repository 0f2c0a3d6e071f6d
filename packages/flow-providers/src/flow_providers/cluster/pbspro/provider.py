"""The provider of PBS Pro and OpenPBS: jobs by ``qsub``, ``qstat`` and ``qdel``."""

from __future__ import annotations

import math
from typing import Annotated

from flow_providers.block_options import (
    AnyLauncher,
    CmdTimeout,
    InitBlocks,
    MaxBlocks,
    MinBlocks,
    Parallelism,
    Walltime,
    WorkerInit,
)
from flow_providers.cluster.options import Account, ClusterOptions, MemAskedPerNode, PBSLines, ServersQueue, ViaChannel
from flow_providers.cluster.pbs import PBSFamilyProvider, PBSSharedDisk
from flow_providers.jobs.files import JobFiles
from flow_providers.option_records import about, documented
from flow_providers.options import checked, record_of


@documented
class PBSProProvider(PBSFamilyProvider):
    """Submits by ``qsub``, asks by ``qstat -x -f -F json``, which has finished jobs too, and cancels by ``qdel``."""

    label = "pbspro"
    package = "flow_providers.cluster.pbspro"
    # -x: finished jobs, too, with their exit status, as long as the server keeps its history.
    qstat = "qstat -x -f -F json"

    @checked
    def __init__(
        self,
        channel: ViaChannel = None,
        account: Account = None,
        queue: ServersQueue = None,
        scheduler_options: PBSLines = "",
        select_options: Annotated[
            str, about("Further resources of the ``select`` request, such as ``'ngpus=4'``.")
        ] = "",
        worker_init: WorkerInit = "",
        nodes_per_block: Annotated[int, about("Nodes (chunks) of a job.")] = 1,
        cores_per_node: Annotated[int, about("Cores asked for on each node, in FLOW_CORES for the command.")] = 1,
        mem_per_node: MemAskedPerNode = None,
        init_blocks: InitBlocks = 1,
        min_blocks: MinBlocks = 0,
        max_blocks: MaxBlocks = 100,
        parallelism: Parallelism = 1,
        launcher: AnyLauncher = None,
        walltime: Walltime = "00:20:00",
        cmd_timeout: CmdTimeout = 120,
        shared_disk: PBSSharedDisk = "auto",
    ) -> None:
        super().__init__(record_of(ClusterOptions, self))
        self.account = account
        self.queue = queue
        self.select_options = select_options

    def script_values(self, job: JobFiles, tasks_per_node: int) -> dict[str, object]:
        """Return the values of this scheduler's own directives in the script template."""
        return {
            "account": self.account,
            "queue": self.queue,
            "select_options": self.select_options,
            # Rounded up to whole MB: PBS takes no fractions.
            "mem_mb": None if self.mem_per_node is None else math.ceil(self.mem_per_node * 1024),
        }
