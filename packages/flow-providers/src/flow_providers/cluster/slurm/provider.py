"""The provider of Slurm: jobs by ``sbatch``, ``squeue``, ``sacct`` and ``scancel``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from shlex import quote
from typing import Annotated

from flow_providers.block_options import (
    AnyLauncher,
    InitBlocks,
    MaxBlocks,
    MinBlocks,
    MoveFiles,
    NodesPerBlock,
    Parallelism,
    WorkerInit,
)
from flow_providers.cluster.answers import listed, merged, told, words
from flow_providers.cluster.base import ClusterProvider
from flow_providers.cluster.options import Account, ClusterOptions, MemAskedPerNode, ViaChannel
from flow_providers.cluster.shared_disk import ADVICE, SharedDisk
from flow_providers.cluster.slurm.parse import (
    OLD_FORMAT,
    QUERY_FORMAT,
    SACCT_FIELDS,
    parse_completions,
    parse_names,
    parse_sacct,
    parse_sbatch,
    parse_scancel_errors,
    parse_squeue,
)
from flow_providers.errors import SchedulerUnavailable
from flow_providers.interfaces.channel import CommandResult
from flow_providers.interfaces.job_status import JobStatus
from flow_providers.jobs.files import JobFiles
from flow_providers.option_records import about, documented
from flow_providers.options import checked, record_of

# times as seconds since the epoch: the host of the channel may live in another time zone
_TIMES = "SLURM_TIME_FORMAT=%s"
# The signal by which Slurm says that a node could not open the output of a job.
_NO_OUTPUT = 53


@documented
class SlurmProvider(ClusterProvider):
    """Submits by ``sbatch``, asks by ``squeue`` and, for jobs that left it, ``sacct``; cancels by ``scancel``.

    The queue is asked by an explicit format for just the jobs in question: ``squeue --json`` of versions before 23
    lists the whole cluster, whatever it is asked for.
    """

    label = "slurm"
    package = "flow_providers.cluster.slurm"
    away = (
        "unable to contact slurm controller",
        "socket timed out",
        "connection refused",
        "zero bytes were transmitted",
        "slurm backup controller in standby",
        "resource temporarily unavailable",
    )

    redirects = True
    tells_script = True

    @checked
    def __init__(
        self,
        partition: Annotated[str | None, about("Partition; None: the cluster's default.")] = None,
        channel: ViaChannel = None,
        nodes_per_block: NodesPerBlock = 1,
        cores_per_node: Annotated[
            int | None, about("Cores asked for on each node, in FLOW_CORES for the command; None: no request.")
        ] = None,
        mem_per_node: MemAskedPerNode = None,
        init_blocks: InitBlocks = 1,
        min_blocks: MinBlocks = 0,
        max_blocks: MaxBlocks = 10,
        parallelism: Parallelism = 1,
        walltime: Annotated[str, about("``HH:MM:SS``; Slurm counts whole minutes.")] = "00:10:00",
        scheduler_options: Annotated[str, about("Lines put after the ``#SBATCH`` directives.")] = "",
        worker_init: WorkerInit = "",
        cmd_timeout: Annotated[
            float, about("Seconds a command of the scheduler may take; slow ones need up to 120.")
        ] = 10,
        exclusive: Annotated[bool, about("Whether the nodes are not shared with other jobs.")] = True,
        move_files: MoveFiles = True,
        launcher: AnyLauncher = None,
        account: Account = None,
        qos: Annotated[str | None, about("Quality of service.")] = None,
        constraint: Annotated[str | None, about("Features the nodes must have.")] = None,
        gpus_per_node: Annotated[int | str | None, about("GPUs on each node, such as ``4`` or ``'a100:4'``.")] = None,
        clusters: Annotated[str | None, about("Cluster to submit to, where there are several.")] = None,
        shared_disk: Annotated[
            SharedDisk,
            about(
                "Whether the nodes see the files of the host that submits. False: the job brings its "
                "secrets in its own text, which Slurm keeps from other users, and writes to a directory "
                "of the node that ends with it; its last words come back in the job's comment, which "
                "nobody else can decipher. ``'auto'``: each job finds out."
            ),
        ] = "auto",
    ) -> None:
        super().__init__(record_of(ClusterOptions, self))
        self.partition = partition
        self.exclusive = exclusive
        self.move_files = move_files
        self.account = account
        self.qos = qos
        self.constraint = constraint
        self.gpus_per_node = gpus_per_node
        self.clusters = clusters
        self._old_squeue = False

    @property
    def shares_nodes(self) -> bool:  # type: ignore[override]  # by its options
        """Whether a job without ``cores_per_node`` gets a part of each node: where it does not ask for whole ones."""
        return not self.exclusive

    def script_values(self, job: JobFiles, tasks_per_node: int) -> dict[str, object]:
        """Return the values of this scheduler's own directives in the script template."""
        return {
            "partition": self.partition,
            "account": self.account,
            "qos": self.qos,
            "constraint": self.constraint,
            "gpus_per_node": self.gpus_per_node,
            "exclusive": self.exclusive,
        }

    @property
    def report(self) -> str:  # type: ignore[override]  # of the cluster that was chosen
        """Return the bash code that puts a job's last words into its comment."""
        return (
            f'timeout 20 scontrol{self._cluster} update JobId="$SLURM_JOB_ID" '
            'Comment="flow:$flow_tag:$flow_said" >/dev/null 2>&1 || true'
        )

    def said(self, job_id: str) -> str:
        """Return the comment of a job, from the queue or the accounting database. SchedulerUnavailable."""
        return self.run(
            f"squeue --noheader --states=all{self._cluster} --jobs={quote(job_id)} --format=%k 2>/dev/null; "
            f"sacct -X -n -P{self._cluster} -o Comment -j {quote(job_id)} 2>/dev/null; true"
        ).stdout

    def explained(self, status: JobStatus, job: JobFiles) -> JobStatus:
        """Return the status with the cause of a job that Slurm could not start since its outputs cannot be opened."""
        if status.signal != _NO_OUTPUT:
            return status
        return replace(
            status,
            message=f"the node could not open the job's output {job.stdout}: it has no such directory, or may not "
            f"write there. {ADVICE}",
        )

    def submit_command(self, job: JobFiles, name: str, tasks_per_node: int) -> str:
        """Return the ``sbatch --parsable`` command, which prints the id alone."""
        return f"sbatch --parsable{self._cluster} {quote(job.script)}"

    def parse_submit(self, result: CommandResult) -> str | None:
        """Return the id that ``sbatch`` printed, or None if it printed none."""
        return parse_sbatch(result.stdout)

    def query_command(self, job_ids: Sequence[str]) -> str:
        """Return the ``squeue`` command for just the given jobs, in the format that this version understands."""
        # --states=all: squeue lists ended jobs for some minutes (MinJobAge), with exit codes, which saves asking
        # sacct.
        form = f"--format='{OLD_FORMAT}'" if self._old_squeue else f"--Format='{QUERY_FORMAT}'"
        return f"{_TIMES} squeue --noheader --states=all{self._cluster} --jobs={listed(job_ids)} {form}"

    def parse_query(self, result: CommandResult) -> dict[str, JobStatus]:
        """Return the jobs that ``squeue`` lists, by id.

        Raises:
            SchedulerUnavailable: it failed; or it is an old version, which is asked in the old format from then on.
        """
        if result.exit_code == 0:
            return parse_squeue(result.stdout)
        if "Invalid job id" in result.stderr:  # of the only one asked for
            return {}
        if "Invalid job format" in result.stderr and not self._old_squeue:
            self._old_squeue = True
            # As if it were away for a moment: the next poll asks in the old format, and no state changes meanwhile.
            raise SchedulerUnavailable("this squeue is an old one; it will be asked in its own way")
        raise SchedulerUnavailable(f"squeue failed: {words(result)}")

    def history(self, job_ids: Sequence[str]) -> dict[str, JobStatus]:
        """Return how jobs ended by the accounting database, else by the log of completions.

        Raises:
            SchedulerUnavailable: it did not answer.
        """
        ids = listed(job_ids)
        database = self.run(
            # A cluster without a database may have a log of completions, which other fields are asked of. Errors are
            # hidden, since some clusters have neither.
            f"{_TIMES} sacct -X -n -P{self._cluster} -o {SACCT_FIELDS} -j {ids} 2>/dev/null || "
            f"sacct -c -n -P -o jobid,state,exitcode -j {ids} 2>/dev/null"
        )
        return merged(parse_sacct(database.stdout), parse_completions(database.stdout))

    def cancel_command(self, job_ids: Sequence[str]) -> str:
        """Return the ``scancel`` command for the given jobs."""
        return f"scancel{self._cluster} {listed(job_ids, ' ')}"

    def parse_cancel(self, result: CommandResult, job_ids: Sequence[str]) -> list[bool]:
        """Return which of the jobs are gone or going, in the order asked.

        Raises:
            SchedulerUnavailable: the command failed without a word about the jobs.
        """
        told(result, job_ids, "invalid job id")
        refused = parse_scancel_errors(result.stderr)
        return [job_id not in refused for job_id in job_ids]

    def find_command(self) -> str:
        """Return the ``squeue`` command that lists ids and names of the user's jobs."""
        return f'squeue --noheader --states=all{self._cluster} --user="$(id -un)" --format="%A|%j"'

    def parse_find(self, result: CommandResult) -> dict[str, str]:
        """Return job names by id.

        Raises:
            SchedulerUnavailable: the command failed.
        """
        if result.exit_code != 0:
            raise SchedulerUnavailable(f"squeue failed: {words(result)}")
        return parse_names(result.stdout)

    @property
    def _cluster(self) -> str:
        return f" --clusters={quote(self.clusters)}" if self.clusters else ""
