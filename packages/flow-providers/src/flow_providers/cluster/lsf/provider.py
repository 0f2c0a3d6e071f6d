"""The provider of LSF: jobs by ``bsub``, ``bjobs`` and ``bkill``."""

from __future__ import annotations

from collections.abc import Sequence
from shlex import quote
from typing import Annotated

from flow_providers.block_options import (
    AnyLauncher,
    CmdTimeout,
    InitBlocks,
    MaxBlocks,
    MinBlocks,
    MoveFiles,
    NodesPerBlock,
    Parallelism,
    WorkerInit,
)
from flow_providers.cluster.answers import listed, told, words
from flow_providers.cluster.base import ClusterProvider
from flow_providers.cluster.lsf.parse import (
    JSON_FORMAT,
    TEXT_FORMAT,
    parse_bjobs,
    parse_bkill_refusals,
    parse_bsub,
    parse_names,
)
from flow_providers.cluster.options import ClusterOptions, Project, Queue, ViaChannel
from flow_providers.errors import SchedulerUnavailable
from flow_providers.interfaces.channel import CommandResult
from flow_providers.interfaces.job_status import JobStatus
from flow_providers.jobs.files import JobFiles
from flow_providers.option_records import about, documented
from flow_providers.options import checked, record_of
from flow_providers.walltime import walltime_minutes


@documented
class LSFProvider(ClusterProvider):
    """Submits by ``bsub``, asks by ``bjobs -json`` (its delimited form before version 10.1), ends by ``bkill``."""

    label = "lsf"
    package = "flow_providers.cluster.lsf"
    away = (
        "lsf is down",
        "please wait",
        "cannot connect to lsf",
        "batch daemon",
        "communication time out",
        "lim is down",
    )

    @checked
    def __init__(
        self,
        channel: ViaChannel = None,
        nodes_per_block: NodesPerBlock = 1,
        cores_per_node: Annotated[
            int | None, about("Slots asked for on each node, in FLOW_CORES for the command.")
        ] = None,
        mem_per_node: Annotated[
            float | None, about("GB asked for on each node, in FLOW_MEMORY_GB for the command.")
        ] = None,
        init_blocks: InitBlocks = 1,
        min_blocks: MinBlocks = 0,
        max_blocks: MaxBlocks = 10,
        parallelism: Parallelism = 1,
        walltime: Annotated[str, about("``HH:MM:SS``; LSF counts whole minutes.")] = "00:10:00",
        scheduler_options: Annotated[str, about("Lines put after the ``#BSUB`` directives.")] = "",
        worker_init: WorkerInit = "",
        project: Project = None,
        queue: Queue = None,
        cmd_timeout: CmdTimeout = 120,
        launcher: AnyLauncher = None,
        request_by_nodes: Annotated[
            bool | None,
            about(
                "Whether to ask for whole nodes (``-nnodes``, as on Summit) rather than for slots (``-n``"
                " and ``span``). None: for slots where ``cores_per_node`` or ``mem_per_node`` says how "
                "many, else for nodes."
            ),
        ] = None,
        move_files: MoveFiles = True,
    ) -> None:
        super().__init__(record_of(ClusterOptions, self))
        self.project = project
        self.queue = queue
        self.request_by_nodes = request_by_nodes
        self.move_files = move_files

    def ineffective_options(self) -> list[str]:
        """Return a sentence for each option that was given and changes nothing beside the others."""
        given = {"cores_per_node": self.cores_per_node, "mem_per_node": self.mem_per_node}
        return super().ineffective_options() + [
            f"{name}={value!r} is told to the workers and not asked of LSF, with request_by_nodes=True"
            for name, value in given.items()
            if value is not None and self.request_by_nodes
        ]

    def script_values(self, job: JobFiles, tasks_per_node: int) -> dict[str, object]:
        """Return the values of this scheduler's own directives in the script template."""
        told = self.cores_per_node is not None or self.mem_per_node is not None
        by_nodes = not told if self.request_by_nodes is None else self.request_by_nodes
        return {
            "project": self.project,
            "queue": self.queue,
            "request_by_nodes": by_nodes,
            "slots_per_node": self.cores_per_node or tasks_per_node,
            "minutes": walltime_minutes(self.walltime),
        }

    def submit_command(self, job: JobFiles, name: str, tasks_per_node: int) -> str:
        """Return the ``bsub`` command, which reads the script and its directives from standard input."""
        # By standard input: given as an argument, bsub ignores the directives in the script.
        return f"bsub < {quote(job.script)}"

    def parse_submit(self, result: CommandResult) -> str | None:
        """Return the id that ``bsub`` printed, or None if it printed none."""
        return parse_bsub(result.stdout)

    def query_command(self, job_ids: Sequence[str]) -> str:
        """Return the ``bjobs`` command for the given jobs: as JSON, else in the delimited form of old versions."""
        ids = listed(job_ids, " ")
        # an old bjobs refuses -json and prints its usage; unknown jobs are an error to both, and are no answer
        return f"bjobs -a -json -o {quote(JSON_FORMAT)} {ids} || bjobs -a -noheader -o {quote(TEXT_FORMAT)} {ids}"

    def parse_query(self, result: CommandResult) -> dict[str, JobStatus]:
        """Return the jobs that the answer lists, by id.

        Raises:
            SchedulerUnavailable: the command failed, and not because it knows none of the jobs.
        """
        # bjobs fails when one of several jobs is unknown, and lists the others all the same.
        if result.exit_code != 0 and "is not found" not in result.stderr + result.stdout:
            raise SchedulerUnavailable(f"bjobs failed: {words(result)}")
        return parse_bjobs(result.stdout)

    def cancel_command(self, job_ids: Sequence[str]) -> str:
        """Return the ``bkill`` command for the given jobs."""
        return f"bkill {listed(job_ids, ' ')}"

    def parse_cancel(self, result: CommandResult, job_ids: Sequence[str]) -> list[bool]:
        """Return which of the jobs are gone or going, in the order asked.

        Raises:
            SchedulerUnavailable: the command failed without a word about the jobs.
        """
        refused = parse_bkill_refusals(told(result, job_ids, "no matching job"))
        return [job_id not in refused for job_id in job_ids]

    def find_command(self) -> str:
        """Return the ``bjobs`` command that lists ids and names of the user's jobs, ended ones included."""
        return "bjobs -a -noheader -o \"jobid job_name delimiter='|'\""

    def parse_find(self, result: CommandResult) -> dict[str, str]:
        """Return job names by id.

        Raises:
            SchedulerUnavailable: the command failed.
        """
        if result.exit_code != 0 and "No job found" not in result.stderr + result.stdout:
            raise SchedulerUnavailable(f"bjobs failed: {words(result)}")
        return parse_names(result.stdout)
