"""Jobs of LSF."""

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
        cores_per_node: Slots asked for on each node where slots are asked for, told as FLOW_CORES.
        mem_per_node: GB asked for on each node where slots are asked for, told as FLOW_MEMORY_GB.
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
        request_by_nodes: Ask for whole nodes (``-nnodes``, as on Summit) rather than for slots.
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
        request_by_nodes: bool = True,
        move_files: bool | None = True,
    ) -> None:
        super().__init__(record_of(ClusterOptions, self))
        self.project = project
        self.queue = queue
        self.request_by_nodes = request_by_nodes
        self.move_files = move_files

    def script_values(self, job: JobFiles, tasks_per_node: int) -> dict[str, object]:  # noqa: D102
        return {
            "project": self.project,
            "queue": self.queue,
            "request_by_nodes": self.request_by_nodes,
            "slots_per_node": self.cores_per_node or tasks_per_node,
            "minutes": walltime_minutes(self.walltime),
        }

    def submit_command(self, job: JobFiles, name: str, tasks_per_node: int) -> str:  # noqa: D102
        return f"bsub < {quote(job.script)}"

    def parse_submit(self, result: CommandResult) -> str | None:  # noqa: D102
        return parse_bsub(result.stdout)

    def query_command(self, job_ids: Sequence[str]) -> str:  # noqa: D102
        ids = listed(job_ids, " ")
        # an old bjobs refuses -json and prints its usage; unknown jobs are an error to both, and are no answer
        return f"bjobs -a -json -o {quote(JSON_FORMAT)} {ids} || bjobs -a -noheader -o {quote(TEXT_FORMAT)} {ids}"

    def parse_query(self, result: CommandResult) -> dict[str, JobStatus]:  # noqa: D102
        if result.exit_code != 0 and "is not found" not in result.stderr + result.stdout:
            raise SchedulerUnavailable(f"bjobs failed: {words(result)}")
        return parse_bjobs(result.stdout)

    def cancel_command(self, job_ids: Sequence[str]) -> str:  # noqa: D102
        return f"bkill {listed(job_ids, ' ')}"

    def parse_cancel(self, result: CommandResult, job_ids: Sequence[str]) -> list[bool]:  # noqa: D102
        refused = parse_bkill_refusals(told(result, job_ids, "no matching job"))
        return [job_id not in refused for job_id in job_ids]

    def find_command(self) -> str:  # noqa: D102
        return "bjobs -a -noheader -o \"jobid job_name delimiter='|'\""

    def parse_find(self, result: CommandResult) -> dict[str, str]:  # noqa: D102
        if result.exit_code != 0 and "No job found" not in result.stderr + result.stdout:
            raise SchedulerUnavailable(f"bjobs failed: {words(result)}")
        return parse_names(result.stdout)
