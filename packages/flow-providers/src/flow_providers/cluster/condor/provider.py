"""Jobs of HTCondor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from shlex import quote

from flow_providers.cluster.answers import listed, told, words
from flow_providers.cluster.base import ClusterProvider
from flow_providers.cluster.condor.parse import (
    ATTRIBUTES,
    parse_names,
    parse_queue,
    parse_rm_refusals,
    parse_submit,
)
from flow_providers.cluster.options import ClusterOptions
from flow_providers.errors import ChannelError, SchedulerUnavailable, ScriptPathError
from flow_providers.interfaces.channel import Channel, CommandResult
from flow_providers.interfaces.job_extras import NO_EXTRAS, JobExtras
from flow_providers.interfaces.job_status import JobStatus
from flow_providers.jobs.files import JobFiles
from flow_providers.options import checked, record_of
from flow_providers.templates import render
from flow_providers.walltime import walltime_minutes, walltime_seconds

_ATTRIBUTES = f"-attributes {','.join(ATTRIBUTES)}"


class CondorProvider(ClusterProvider):
    """Submits by ``condor_submit``, asks by ``condor_q -json`` and ``condor_history -json``, ends by ``condor_rm``.

    Args:
        channel: How the scheduler is reached; None: on this machine.
        nodes_per_block: Processes of a job, each on a slot of its own (``queue N``).
        cores_per_slot: Cores asked for in a slot, told as FLOW_CORES; None: nothing is asked.
        mem_per_slot: GB asked for in a slot, told as FLOW_MEMORY_GB; None: nothing is asked.
        init_blocks: Jobs at the start.
        min_blocks: Fewest jobs.
        max_blocks: Most jobs.
        parallelism: Wanted slots per active task.
        environment: Variables set before the command runs.
        project: Project to account for.
        scheduler_options: Lines put before ``queue`` in the submit description.
        transfer_input_files: Files and directories sent along.
        walltime: ``HH:MM:SS``, kept by a ``periodic_remove`` expression.
        worker_init: Bash code run before the command.
        launcher: Multiplies the command in the slot; None: ``SingleNodeLauncher()``.
        requirements: A ClassAd expression on the machine.
        cmd_timeout: Seconds a command of the scheduler may take.
    """

    label = "condor"
    package = "flow_providers.cluster.condor"
    away = ("can't find address", "failed to connect", "unable to locate a collector", "failed to fetch ads", "is down")

    @checked
    def __init__(
        self,
        channel: Channel | None = None,
        nodes_per_block: int = 1,
        cores_per_slot: int | None = None,
        mem_per_slot: float | None = None,
        init_blocks: int = 1,
        min_blocks: int = 0,
        max_blocks: int = 10,
        parallelism: float = 1,
        environment: Mapping[str, str] | None = None,
        project: str = "",
        scheduler_options: str = "",
        transfer_input_files: Sequence[str] = (),
        walltime: str = "00:10:00",
        worker_init: str = "",
        launcher: object = None,
        requirements: str = "",
        cmd_timeout: float = 60,
    ) -> None:
        super().__init__(record_of(ClusterOptions, self, cores_per_node=cores_per_slot, mem_per_node=mem_per_slot))
        self.cores_per_slot = cores_per_slot
        self.mem_per_slot = mem_per_slot
        self.environment = dict(environment or {})
        self.project = project
        self.transfer_input_files = list(transfer_input_files)
        self.requirements = requirements

    def submit(  # noqa: D102
        self, command: str, tasks_per_node: int, job_name: str = "flow.auto", *, extras: JobExtras = NO_EXTRAS
    ) -> str:
        environment = (*self.environment.items(), *extras.environment)
        return super().submit(command, tasks_per_node, job_name, extras=replace(extras, environment=environment))

    def submit_command(self, job: JobFiles, name: str, tasks_per_node: int) -> str:  # noqa: D102
        description = render(
            self.package,
            "submit.j2",
            {
                "job": job,
                "name": name,
                "minutes": walltime_minutes(self.walltime),
                "walltime_s": walltime_seconds(self.walltime),
                "nodes_per_block": self.nodes_per_block,
                "cores_per_node": self.cores_per_node,
                "mem_per_node": self.mem_per_node,
                "transfer_input_files": self.transfer_input_files,
                "requirements": self.requirements,
                "project": self.project,
                "scheduler_options": self.scheduler_options,
            },
        )
        try:
            path = self.channel.push_bytes(description.encode(), f"{job.stem}.submit", job.folder)
        except ChannelError as error:
            raise ScriptPathError(f"job {job.stem} was not submitted: {error}", job.folder) from error
        return f"condor_submit {quote(path)}"

    def parse_submit(self, result: CommandResult) -> str | None:  # noqa: D102
        return parse_submit(result.stdout)

    def query_command(self, job_ids: Sequence[str]) -> str:  # noqa: D102
        return f"condor_q {listed(job_ids, ' ')} -json {_ATTRIBUTES}"

    def parse_query(self, result: CommandResult) -> dict[str, JobStatus]:  # noqa: D102
        if result.exit_code != 0:
            raise SchedulerUnavailable(f"condor_q failed: {words(result)}")
        return self.with_ends(parse_queue(result.stdout))

    def history(self, job_ids: Sequence[str]) -> dict[str, JobStatus]:  # noqa: D102
        limit = len(job_ids) * self.nodes_per_block
        command = f"condor_history {listed(job_ids, ' ')} -json {_ATTRIBUTES} -limit {limit} 2>/dev/null || true"
        return parse_queue(self.run(command).stdout)

    def cancel_command(self, job_ids: Sequence[str]) -> str:  # noqa: D102
        return f"condor_rm {listed(job_ids, ' ')}"

    def parse_cancel(self, result: CommandResult, job_ids: Sequence[str]) -> list[bool]:  # noqa: D102
        refused = parse_rm_refusals(told(result, job_ids))
        return [job_id not in refused for job_id in job_ids]

    def find_command(self) -> str:  # noqa: D102
        return f'condor_q "$(id -un)" -json {_ATTRIBUTES}'

    def parse_find(self, result: CommandResult) -> dict[str, str]:  # noqa: D102
        if result.exit_code != 0:
            raise SchedulerUnavailable(f"condor_q failed: {words(result)}")
        return parse_names(result.stdout)
