"""The provider of LSF: jobs by ``bsub``, ``bjobs`` and ``bkill``."""

from __future__ import annotations

from collections.abc import Sequence
from shlex import quote

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
from flow_providers.cluster.options import ClusterOptions
from flow_providers.errors import SchedulerUnavailable
from flow_providers.interfaces.channel import Channel, CommandResult
from flow_providers.interfaces.job_status import JobStatus
from flow_providers.jobs.files import JobFiles
from flow_providers.options import checked, record_of
from flow_providers.walltime import walltime_minutes


class LSFProvider(ClusterProvider):
    """Submits by ``bsub``, asks by ``bjobs -json`` (or its delimited form, of versions before 10.1), ends by ``bkill``.

    Args:
        channel: How the scheduler is reached; None: on this machine.
        nodes_per_block: Nodes of a job.
        cores_per_node: Slots asked for on each node, in FLOW_CORES for the command.
        mem_per_node: GB asked for on each node, in FLOW_MEMORY_GB for the command.
        init_blocks: Jobs at the start.
        min_blocks: Fewest jobs.
        max_blocks: Most jobs.
        parallelism: Wanted slots per active task.
        walltime: ``HH:MM:SS``; LSF counts whole minutes.
        scheduler_options: Lines put after the ``#BSUB`` directives.
        worker_init: Bash code run before the command.
        project: Project to charge.
        queue: Queue; None: the default.
        cmd_timeout: Seconds a command of the scheduler may take.
        launcher: Multiplies the command on the nodes; None: ``SingleNodeLauncher()``.
        request_by_nodes: Whether to ask for whole nodes (``-nnodes``, as on Summit) rather than for slots
            (``-n`` and ``span``). None: for slots where ``cores_per_node`` or ``mem_per_node`` says how many, else for
            nodes.
        move_files: Accepted from other configurations: scripts always go through the channel.
    """

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
        channel: Channel | None = None,
        nodes_per_block: int = 1,
        cores_per_node: int | None = None,
        mem_per_node: float | None = None,
        init_blocks: int = 1,
        min_blocks: int = 0,
        max_blocks: int = 10,
        parallelism: float = 1,
        walltime: str = "00:10:00",
        scheduler_options: str = "",
        worker_init: str = "",
        project: str | None = None,
        queue: str | None = None,
        cmd_timeout: float = 120,
        launcher: object = None,
        request_by_nodes: bool | None = None,
        move_files: bool | None = True,
    ) -> None:
        super().__init__(record_of(ClusterOptions, self))
        self.project = project
        self.queue = queue
        self.request_by_nodes = request_by_nodes
        self.move_files = move_files

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
