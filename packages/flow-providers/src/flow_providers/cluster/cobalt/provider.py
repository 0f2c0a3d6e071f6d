"""The provider of Cobalt: jobs by ``qsub``, ``qstat`` and ``qdel``."""

from __future__ import annotations

from collections.abc import Sequence
from shlex import quote
from typing import Annotated

from flow_providers.block_options import (
    CmdTimeout,
    InitBlocks,
    MaxBlocks,
    MemPerNode,
    MinBlocks,
    NodesPerBlock,
    Parallelism,
    WorkerInit,
)
from flow_providers.cluster.answers import listed, told, words
from flow_providers.cluster.base import ClusterProvider
from flow_providers.cluster.cobalt.parse import parse_log, parse_names, parse_qdel_refusals, parse_qstat, parse_qsub
from flow_providers.cluster.options import ByAprun, ClusterOptions, Project, Queue, ViaChannel
from flow_providers.errors import SchedulerUnavailable
from flow_providers.interfaces.channel import CommandResult
from flow_providers.interfaces.job_status import JobStatus
from flow_providers.jobs.files import JobFiles
from flow_providers.launchers.aprun import AprunLauncher
from flow_providers.option_records import about, documented
from flow_providers.options import checked, record_of
from flow_providers.walltime import walltime_minutes

# Texts of qstat and qdel, in lower case, about jobs that have left the queue: these failures are answers.
_UNKNOWN = ("no jobs found", "not found", "no matching jobs")
_LOG_BYTES = 8192  # bytes of the end of a log; how a job ended stands in its last lines, after the environment
_MARK = "flow-log-of "


@documented
class CobaltProvider(ClusterProvider):
    """Submits by ``qsub``, asks by ``qstat -lf``, cancels by ``qdel``.

    How a job ended is taken from the log that Cobalt writes beside its output, or from what its own script left behind.
    """

    label = "cobalt"
    package = "flow_providers.cluster.cobalt"
    away = (
        "component lookup failed",
        "failed to connect",
        "unable to connect",
        "cannot connect",
        "connection refused",
        "cannot contact",
    )
    default_launcher = AprunLauncher

    @checked
    def __init__(
        self,
        channel: ViaChannel = None,
        nodes_per_block: NodesPerBlock = 1,
        init_blocks: InitBlocks = 1,
        min_blocks: MinBlocks = 0,
        max_blocks: MaxBlocks = 10,
        parallelism: Parallelism = 1,
        walltime: Annotated[str, about("``HH:MM:SS``; Cobalt counts whole minutes.")] = "00:10:00",
        account: Project = None,
        queue: Queue = None,
        scheduler_options: Annotated[str, about("Lines put after the ``#COBALT`` directives.")] = "",
        worker_init: WorkerInit = "",
        launcher: ByAprun = None,
        cmd_timeout: CmdTimeout = 10,
        cores_per_node: Annotated[
            int | None,
            about("Cores of the node, for the command in FLOW_CORES; None: not set. Cobalt gives whole nodes."),
        ] = None,
        mem_per_node: MemPerNode = None,
    ) -> None:
        super().__init__(record_of(ClusterOptions, self))
        self.account = account
        self.queue = queue

    def script_values(self, job: JobFiles, tasks_per_node: int) -> dict[str, object]:
        """Return the values of this scheduler's own directives in the script template."""
        return {
            "account": self.account,
            "queue": self.queue,
            "minutes": walltime_minutes(self.walltime),
            "log": _log_of(job),
        }

    def submit_command(self, job: JobFiles, name: str, tasks_per_node: int) -> str:
        """Return the ``qsub`` command; all options are directives in the script."""
        return f"qsub {quote(job.script)}"

    def parse_submit(self, result: CommandResult) -> str | None:
        """Return the id that ``qsub`` printed, or None if it printed none."""
        return parse_qsub(result.stdout)

    def query_command(self, job_ids: Sequence[str]) -> str:
        """Return the ``qstat -lf`` command for the given jobs."""
        return f"qstat -lf {listed(job_ids, ' ')}"

    def parse_query(self, result: CommandResult) -> dict[str, JobStatus]:
        """Return the jobs that the answer lists, by id.

        Raises:
            SchedulerUnavailable: the command failed, and not because it knows none of the jobs.
        """
        _insist(result)
        return parse_qstat(result.stdout)

    def history(self, job_ids: Sequence[str]) -> dict[str, JobStatus]:
        """Return how jobs ended by the ends of the logs that Cobalt wrote beside their outputs.

        Raises:
            SchedulerUnavailable: the channel does not answer now.
        """
        paths = {_log_of(self._files[job_id]): job_id for job_id in job_ids if job_id in self._files}
        if not paths:
            return {}
        files = " ".join(quote(path) for path in paths)
        command = f'for f in {files}; do echo "{_MARK}$f"; tail -c {_LOG_BYTES} "$f"; echo; done 2>/dev/null; true'
        found: dict[str, JobStatus] = {}
        for part in self.run(command).stdout.split(_MARK)[1:]:
            path, _, log = part.partition("\n")
            status = parse_log(log)
            if path in paths and status is not None:
                found[paths[path]] = status
        return found

    def cancel_command(self, job_ids: Sequence[str]) -> str:
        """Return the ``qdel`` command for the given jobs."""
        return f"qdel {listed(job_ids, ' ')}"

    def parse_cancel(self, result: CommandResult, job_ids: Sequence[str]) -> list[bool]:
        """Return which of the jobs are gone or going, in the order asked.

        Raises:
            SchedulerUnavailable: the command failed without a word about the jobs.
        """
        refused = parse_qdel_refusals(told(result, job_ids, *_UNKNOWN))
        return [job_id not in refused for job_id in job_ids]

    def find_command(self) -> str:
        """Return the ``qstat`` command that lists all jobs of the user."""
        return 'qstat -lf -u "$(id -un)"'

    def parse_find(self, result: CommandResult) -> dict[str, str]:
        """Return job names by id.

        Raises:
            SchedulerUnavailable: the command failed.
        """
        _insist(result)
        return parse_names(result.stdout)


def _log_of(job: JobFiles) -> str:
    return f"{job.folder}/{job.stem}.cobaltlog"


def _insist(result: CommandResult) -> None:
    """Raise SchedulerUnavailable unless qstat answered: that it knows none of the jobs is an answer."""
    said = result.stderr.lower()
    # 1 only: the shell's 127 for a missing qstat was once taken for "no such job".
    knows_none = result.exit_code == 1 and (not said.strip() or any(text in said for text in _UNKNOWN))
    if result.exit_code != 0 and not knows_none:
        raise SchedulerUnavailable(f"qstat failed: {words(result)}")
