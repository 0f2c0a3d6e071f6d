"""The provider of HTCondor: jobs by ``condor_submit``, ``condor_q`` and ``condor_rm``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from shlex import quote
from typing import Annotated

from flow_providers.block_options import (
    AnyLauncher,
    CmdTimeout,
    InitBlocks,
    MaxBlocks,
    MinBlocks,
    Parallelism,
    WorkerInit,
)
from flow_providers.cluster.answers import listed, told, words
from flow_providers.cluster.base import ClusterProvider
from flow_providers.cluster.condor.parse import (
    ATTRIBUTES,
    parse_names,
    parse_queue,
    parse_rm_refusals,
    parse_submit,
)
from flow_providers.cluster.options import ClusterOptions, ViaChannel
from flow_providers.cluster.shared_disk import SharedDisk
from flow_providers.errors import BadOption, ChannelError, SchedulerUnavailable, ScriptPathError
from flow_providers.interfaces.channel import CommandResult
from flow_providers.interfaces.job_extras import NO_EXTRAS, JobExtras
from flow_providers.interfaces.job_status import JobStatus
from flow_providers.jobs.files import JobFiles
from flow_providers.option_records import about, documented
from flow_providers.options import checked, record_of
from flow_providers.templates import render
from flow_providers.walltime import walltime_minutes, walltime_seconds

_ATTRIBUTES = f"-attributes {','.join(ATTRIBUTES)}"


@documented
class CondorProvider(ClusterProvider):
    """Submits by ``condor_submit``, asks by ``condor_q -json`` and ``condor_history -json``, ends by ``condor_rm``.

    Raises (from the constructor):
        BadOption: a name of ``transfer_input_files`` has a comma.
    """

    label = "condor"
    shares_nodes = True
    starts_on_each_node = True
    package = "flow_providers.cluster.condor"
    away = ("can't find address", "failed to connect", "unable to locate a collector", "failed to fetch ads", "is down")

    sandbox = '"${_CONDOR_SCRATCH_DIR:-.}"'

    @checked
    def __init__(
        self,
        channel: ViaChannel = None,
        nodes_per_block: Annotated[int, about("Processes of a job, each on a slot of its own (``queue N``).")] = 1,
        cores_per_slot: Annotated[
            int | None, about("Cores asked for in a slot, in FLOW_CORES for the command; None: no request.")
        ] = None,
        mem_per_slot: Annotated[
            float | None, about("GB asked for in a slot, in FLOW_MEMORY_GB for the command; None: no request.")
        ] = None,
        init_blocks: InitBlocks = 1,
        min_blocks: MinBlocks = 0,
        max_blocks: MaxBlocks = 10,
        parallelism: Parallelism = 1,
        environment: Annotated[Mapping[str, str] | None, about("Variables set before the command runs.")] = None,
        project: Annotated[str, about("Project to account for.")] = "",
        scheduler_options: Annotated[str, about("Lines put before ``queue`` in the submit description.")] = "",
        transfer_input_files: Annotated[
            Sequence[str], about("Files and directories sent along; a name with a comma cannot be.")
        ] = (),
        walltime: Annotated[str, about("``HH:MM:SS``, kept by a ``periodic_remove`` expression.")] = "00:10:00",
        worker_init: WorkerInit = "",
        launcher: AnyLauncher = None,
        requirements: Annotated[str, about("A ClassAd expression on the machine.")] = "",
        cmd_timeout: CmdTimeout = 60,
        shared_disk: Annotated[
            SharedDisk,
            about(
                "Whether the slots see the files of the host that submits. False: HTCondor brings the "
                "job's secrets to its slot and its outputs back, when it has ended. ``'auto'``: the same "
                "where the domains of the file systems differ. True: secrets are looked for on the disk "
                "alone."
            ),
        ] = "auto",
    ) -> None:
        super().__init__(record_of(ClusterOptions, self, cores_per_node=cores_per_slot, mem_per_node=mem_per_slot))
        self.cores_per_slot = cores_per_slot
        self.mem_per_slot = mem_per_slot
        self.environment = dict(environment or {})
        self.project = project
        self.transfer_input_files = list(transfer_input_files)
        self.requirements = requirements
        for path in self.transfer_input_files:
            if "," in path:
                raise BadOption(
                    f"CondorProvider: transfer_input_files has {path!r}: HTCondor takes no commas in names of files"
                )

    def submit(
        self, command: str, tasks_per_node: int, job_name: str = "flow.auto", *, extras: JobExtras = NO_EXTRAS
    ) -> str:
        """Submit the job with the provider's ``environment`` under the job's own; see ``ClusterProvider.submit``."""
        # The job's own variables come last, so that they win.
        environment = (*self.environment.items(), *extras.environment)
        return super().submit(command, tasks_per_node, job_name, extras=replace(extras, environment=environment))

    def submit_command(self, job: JobFiles, name: str, tasks_per_node: int) -> str:
        """Write the submit description beside the script and return the ``condor_submit`` command for it.

        Raises:
            ScriptPathError: the description cannot be written.
        """
        secrets = [] if self.shared_disk is True else job.secret_files
        description = render(
            self.package,
            "submit.j2",
            {
                "job": job,
                "name": name,
                "minutes": walltime_minutes(self.walltime),
                "walltime_s": walltime_seconds(self.walltime),
                "nodes_per_block": self.nodes_per_block,
                "cores_per_node": self.asked_cores,
                "mem_per_node": self.asked_memory_gb,
                "transfer": "YES" if self.shared_disk is False else "IF_NEEDED",
                "transfer_input_files": [*self.transfer_input_files, *secrets],
                "requirements": self.requirements,
                "project": self.project,
                "scheduler_options": self.scheduler_options,
            },
        )
        try:
            # A file, not standard input: the user finds beside the script what was submitted.
            path = self.channel.push_bytes(description.encode(), f"{job.stem}.submit", job.folder)
        except ChannelError as error:
            raise ScriptPathError(f"job {job.stem} was not submitted: {error}", job.folder) from error
        return f"condor_submit {quote(path)}"

    def outputs(self, job: JobFiles) -> tuple[Sequence[str], Sequence[str]]:
        """Return the files of standard output and standard error: a pair for each process of the job."""
        if self.nodes_per_block == 1:
            return super().outputs(job)
        stem, processes = f"{job.folder}/{job.stem}", range(self.nodes_per_block)
        return [f"{stem}.{process}.out" for process in processes], [f"{stem}.{process}.err" for process in processes]

    def parse_submit(self, result: CommandResult) -> str | None:
        """Return the cluster id that ``condor_submit`` printed, or None if it printed none."""
        return parse_submit(result.stdout)

    def query_command(self, job_ids: Sequence[str]) -> str:
        """Return the ``condor_q -json`` command for the given jobs."""
        return f"condor_q {listed(job_ids, ' ')} -json {_ATTRIBUTES}"

    def parse_query(self, result: CommandResult) -> dict[str, JobStatus]:
        """Return the jobs that the answer lists, by id.

        Raises:
            SchedulerUnavailable: the command failed, and not because it knows none of the jobs.
        """
        if result.exit_code != 0:
            raise SchedulerUnavailable(f"condor_q failed: {words(result)}")
        return self.with_ends(parse_queue(result.stdout))

    def history(self, job_ids: Sequence[str]) -> dict[str, JobStatus]:
        """Return how jobs ended by ``condor_history``.

        Raises:
            SchedulerUnavailable: it did not answer.
        """
        # Without a limit condor_history reads its whole file, years of jobs; each process of a cluster is a record.
        limit = len(job_ids) * self.nodes_per_block
        command = f"condor_history {listed(job_ids, ' ')} -json {_ATTRIBUTES} -limit {limit} 2>/dev/null || true"
        return parse_queue(self.run(command).stdout)

    def cancel_command(self, job_ids: Sequence[str]) -> str:
        """Return the ``condor_rm`` command for the given jobs."""
        return f"condor_rm {listed(job_ids, ' ')}"

    def parse_cancel(self, result: CommandResult, job_ids: Sequence[str]) -> list[bool]:
        """Return which of the jobs are gone or going, in the order asked.

        Raises:
            SchedulerUnavailable: the command failed without a word about the jobs.
        """
        refused = parse_rm_refusals(told(result, job_ids))
        return [job_id not in refused for job_id in job_ids]

    def find_command(self) -> str:
        """Return the ``condor_q`` command that lists all jobs of the user."""
        return f'condor_q "$(id -un)" -json {_ATTRIBUTES}'

    def parse_find(self, result: CommandResult) -> dict[str, str]:
        """Return job names by id.

        Raises:
            SchedulerUnavailable: the command failed.
        """
        if result.exit_code != 0:
            raise SchedulerUnavailable(f"condor_q failed: {words(result)}")
        return parse_names(result.stdout)
