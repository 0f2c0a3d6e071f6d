"""The provider of PBS Pro and OpenPBS: jobs by ``qsub``, ``qstat`` and ``qdel``."""

from __future__ import annotations

import math

from flow_providers.cluster.options import ClusterOptions
from flow_providers.cluster.pbs import PBSFamilyProvider
from flow_providers.cluster.shared_disk import SharedDisk
from flow_providers.interfaces.channel import Channel
from flow_providers.jobs.files import JobFiles
from flow_providers.options import checked, record_of


class PBSProProvider(PBSFamilyProvider):
    """Submits by ``qsub``, asks by ``qstat -x -f -F json``, which has finished jobs too, and cancels by ``qdel``.

    Args:
        channel: How the scheduler is reached; None: on this machine.
        account: Account to charge.
        queue: Queue; None: the server's default.
        scheduler_options: Lines put after the ``#PBS`` directives.
        select_options: Further resources of the ``select`` request, such as ``'ngpus=4'``.
        worker_init: Bash code run before the command.
        nodes_per_block: Nodes (chunks) of a job.
        cores_per_node: Cores asked for on each node, in FLOW_CORES for the command.
        mem_per_node: GB asked for on each node, in FLOW_MEMORY_GB for the command; None: no request.
        init_blocks: Jobs at the start.
        min_blocks: Fewest jobs.
        max_blocks: Most jobs.
        parallelism: Wanted slots per active task.
        launcher: Multiplies the command on the nodes; None: ``SingleNodeLauncher()``.
        walltime: ``HH:MM:SS``.
        cmd_timeout: Seconds a command of the scheduler may take.
        shared_disk: Whether the nodes see the files of the host that submits. False: the job brings its secrets in its
            own text, which the server keeps from other users; its outputs come back as PBS brings them. ``'auto'``:
            each job finds out.
    """

    label = "pbspro"
    package = "flow_providers.cluster.pbspro"
    # -x: finished jobs, too, with their exit status, as long as the server keeps its history.
    qstat = "qstat -x -f -F json"

    @checked
    def __init__(
        self,
        channel: Channel | None = None,
        account: str | None = None,
        queue: str | None = None,
        scheduler_options: str = "",
        select_options: str = "",
        worker_init: str = "",
        nodes_per_block: int = 1,
        cores_per_node: int = 1,
        mem_per_node: float | None = None,
        init_blocks: int = 1,
        min_blocks: int = 0,
        max_blocks: int = 100,
        parallelism: float = 1,
        launcher: object = None,
        walltime: str = "00:20:00",
        cmd_timeout: float = 120,
        shared_disk: SharedDisk = "auto",
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
