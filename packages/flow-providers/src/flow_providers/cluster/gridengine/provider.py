"""The provider of Grid Engine (Sun, Son of, Univa, Altair): jobs by ``qsub``, ``qstat``, ``qacct`` and ``qdel``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from shlex import quote
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
from flow_providers.cluster.answers import listed, told, words
from flow_providers.cluster.base import ClusterProvider
from flow_providers.cluster.gridengine.parse import (
    parse_names,
    parse_qacct,
    parse_qdel_refusals,
    parse_qstat,
    parse_qsub,
)
from flow_providers.cluster.local_time import with_zone
from flow_providers.cluster.options import ClusterOptions, Project, ViaChannel
from flow_providers.errors import BadOption, SchedulerUnavailable
from flow_providers.interfaces.channel import CommandResult
from flow_providers.interfaces.job_status import JobStatus
from flow_providers.jobs.files import JobFiles
from flow_providers.option_records import about, documented
from flow_providers.options import checked, record_of

_QACCT_BATCH = 50  # jobs in one command: qacct reads its whole log for each, and cmd_timeout holds for the command
_QSTAT = with_zone('qstat -xml -u "$(id -un)"')


@documented
class GridEngineProvider(ClusterProvider):
    """Submits by ``qsub``, asks by ``qstat -xml`` and, for jobs that left it, ``qacct``; cancels by ``qdel``.

    Raises (from the constructor):
        BadOption: several cores or nodes, and no ``parallel_environment`` to ask for them in.
    """

    label = "gridengine"
    shares_nodes = True
    package = "flow_providers.cluster.gridengine"
    away = ("unable to contact qmaster", "unable to send message to qmaster", "got select timeout", "commlib error")

    @checked
    def __init__(
        self,
        channel: ViaChannel = None,
        nodes_per_block: Annotated[int, about("Nodes of a job; more than one needs a ``parallel_environment``.")] = 1,
        init_blocks: InitBlocks = 1,
        min_blocks: MinBlocks = 0,
        max_blocks: MaxBlocks = 10,
        parallelism: Parallelism = 1,
        walltime: Walltime = "00:10:00",
        scheduler_options: Annotated[str, about("Lines put after the ``#$`` directives.")] = "",
        worker_init: WorkerInit = "",
        launcher: AnyLauncher = None,
        cmd_timeout: CmdTimeout = 60,
        queue: Annotated[str | None, about("Queue; None: whichever fits.")] = None,
        project: Project = None,
        parallel_environment: Annotated[
            str | None,
            about(
                "Asks for slots of this environment: ``cores_per_node``, or else ``tasks_per_node``, on "
                "each of ``nodes_per_block`` nodes. None: one slot."
            ),
        ] = None,
        cores_per_node: Annotated[
            int | None,
            about(
                "Slots asked for on each node, in FLOW_CORES for the command; more than one needs a "
                "``parallel_environment``."
            ),
        ] = None,
        mem_per_node: Annotated[
            float | None, about("GB on each node, asked for as ``h_vmem``, in FLOW_MEMORY_GB for the command.")
        ] = None,
    ) -> None:
        super().__init__(record_of(ClusterOptions, self))
        self.queue = queue
        self.project = project
        self.parallel_environment = parallel_environment
        for name, value in (("cores_per_node", cores_per_node or 1), ("nodes_per_block", nodes_per_block)):
            if value > 1 and parallel_environment is None:
                raise BadOption(
                    f"GridEngineProvider: {name}={value} asks for several slots, which Grid Engine gives in a "
                    "parallel_environment only: name one, such as 'smp' (`qconf -spl` lists those of the site)"
                )

    @property
    def asks_for_use(self) -> bool:  # type: ignore[override]  # by its options
        """Whether jobs ask for what their commands use: in a parallel environment, which alone gives several slots."""
        return self.parallel_environment is not None

    def script_values(self, job: JobFiles, tasks_per_node: int) -> dict[str, object]:
        """Return the values of this scheduler's own directives in the script template."""
        slots_per_node = self.asked_cores or tasks_per_node
        # h_vmem is a limit for each slot, and a node has several of them.
        slots_here = slots_per_node if self.parallel_environment else 1
        memory_gb = self.asked_memory_gb
        return {
            "queue": self.queue,
            "project": self.project,
            "parallel_environment": self.parallel_environment,
            "slots": self.nodes_per_block * slots_per_node,
            "mem_per_slot_mb": math.ceil(memory_gb * 1024 / slots_here) if memory_gb else None,
        }

    def submit_command(self, job: JobFiles, name: str, tasks_per_node: int) -> str:
        """Return the ``qsub -terse`` command, which prints the id alone."""
        return f"qsub -terse {quote(job.script)}"

    def parse_submit(self, result: CommandResult) -> str | None:
        """Return the id that ``qsub`` printed, or None if it printed none."""
        return parse_qsub(result.stdout)

    def query_command(self, job_ids: Sequence[str]) -> str:
        """Return the ``qstat -xml`` command; it lists all jobs of the user, whatever jobs are asked for."""
        return _QSTAT

    def parse_query(self, result: CommandResult) -> dict[str, JobStatus]:
        """Return the jobs that the answer lists, by id.

        Raises:
            SchedulerUnavailable: the command failed, and not because it knows none of the jobs.
        """
        self._insist(result)
        return self.with_ends(parse_qstat(result.stdout))

    def history(self, job_ids: Sequence[str]) -> dict[str, JobStatus]:
        """Return how jobs ended by ``qacct``.

        Raises:
            SchedulerUnavailable: it did not answer.
        """
        rows: dict[str, JobStatus] = {}
        for i in range(0, len(job_ids), _QACCT_BATCH):
            ids = listed(job_ids[i : i + _QACCT_BATCH], " ")
            rows.update(parse_qacct(self.run(f"for id in {ids}; do qacct -j $id 2>/dev/null; done; true").stdout))
        return rows

    def cancel_command(self, job_ids: Sequence[str]) -> str:
        """Return the ``qdel`` command for the given jobs."""
        return f"qdel {listed(job_ids)}"

    def parse_cancel(self, result: CommandResult, job_ids: Sequence[str]) -> list[bool]:
        """Return which of the jobs are gone or going, in the order asked.

        Raises:
            SchedulerUnavailable: the command failed without a word about the jobs.
        """
        refused = parse_qdel_refusals(told(result, job_ids))
        return [job_id not in refused for job_id in job_ids]

    def find_command(self) -> str:
        """Return the ``qstat -xml`` command that lists all jobs of the user."""
        return _QSTAT

    def parse_find(self, result: CommandResult) -> dict[str, str]:
        """Return job names by id.

        Raises:
            SchedulerUnavailable: the command failed.
        """
        self._insist(result)
        return parse_names(result.stdout)

    @staticmethod
    def _insist(result: CommandResult) -> None:
        # An empty queue is a document, too: without one, qstat did not answer.
        if result.exit_code != 0 or "<?xml" not in result.stdout:
            raise SchedulerUnavailable(f"qstat failed: {words(result)}")
