"""The provider of Torque: jobs by ``qsub``, ``qstat`` and ``qdel``."""

from __future__ import annotations

import math

from flow_providers.cluster.options import ClusterOptions
from flow_providers.cluster.pbs import PBSFamilyProvider
from flow_providers.cluster.shared_disk import SharedDisk
from flow_providers.interfaces.channel import Channel
from flow_providers.jobs.files import JobFiles
from flow_providers.launchers.aprun import AprunLauncher
from flow_providers.options import checked, record_of


class TorqueProvider(PBSFamilyProvider):
    """Submits by ``qsub``, asks by ``qstat -f``, cancels by ``qdel``.

    How a job ended is taken from the scheduler, from ``tracejob`` where the server's logs can be read, or from what the
    job's own script left behind.

    Args:
        channel: How the scheduler is reached; None: on this machine.
        account: Account to charge.
        queue: Queue; None: the server's default.
        scheduler_options: Lines put after the ``#PBS`` directives.
        worker_init: Bash code run before the command.
        nodes_per_block: Nodes of a job.
        init_blocks: Jobs at the start.
        min_blocks: Fewest jobs.
        max_blocks: Most jobs.
        parallelism: Wanted slots per active task.
        launcher: Multiplies the command on the nodes; None: ``AprunLauncher()``.
        walltime: ``HH:MM:SS``.
        cmd_timeout: Seconds a command of the scheduler may take.
        cores_per_node: Cores requested on each node, in FLOW_CORES for the command; None: one for each copy of it.
        mem_per_node: GB asked for on each node, in FLOW_MEMORY_GB for the command; None: no request.
        shared_disk: Whether the nodes see the files of the host that submits. False: the job brings its secrets in its
            own text, which the server keeps from other users; its outputs come back as PBS brings them. ``'auto'``:
            each job finds out.
    """

    label = "torque"
    package = "flow_providers.cluster.torque"
    default_launcher = AprunLauncher

    @checked
    def __init__(
        self,
        channel: Channel | None = None,
        account: str | None = None,
        queue: str | None = None,
        scheduler_options: str = "",
        worker_init: str = "",
        nodes_per_block: int = 1,
        init_blocks: int = 1,
        min_blocks: int = 0,
        max_blocks: int = 100,
        parallelism: float = 1,
        launcher: object = None,
        walltime: str = "00:20:00",
        cmd_timeout: float = 120,
        cores_per_node: int | None = None,
        mem_per_node: float | None = None,
        shared_disk: SharedDisk = "auto",
    ) -> None:
        super().__init__(record_of(ClusterOptions, self))
        self.account = account
        self.queue = queue

    def script_values(self, job: JobFiles, tasks_per_node: int) -> dict[str, object]:
        """Return the values of this scheduler's own directives in the script template."""
        # Torque's mem is for the whole job, not for a node.
        total = None if self.mem_per_node is None else math.ceil(self.mem_per_node * 1024) * self.nodes_per_block
        return {"account": self.account, "queue": self.queue, "mem_mb": total}
