"""Jobs of Cobalt."""

from __future__ import annotations

from collections.abc import Sequence
from shlex import quote

from flow_providers.cluster.answers import listed, told, words
from flow_providers.cluster.base import ClusterProvider
from flow_providers.cluster.cobalt.parse import parse_log, parse_names, parse_qdel_refusals, parse_qstat, parse_qsub
from flow_providers.cluster.options import ClusterOptions
from flow_providers.errors import SchedulerUnavailable
from flow_providers.interfaces.channel import Channel, CommandResult
from flow_providers.interfaces.job_status import JobStatus
from flow_providers.jobs.files import JobFiles
from flow_providers.launchers.aprun import AprunLauncher
from flow_providers.options import checked, record_of
from flow_providers.walltime import walltime_minutes

_UNKNOWN = ("no jobs found", "not found", "no matching jobs")
_LOG_BYTES = 8192
_MARK = "flow-log-of "


class CobaltProvider(ClusterProvider):
    """Submits by ``qsub``, asks by ``qstat -lf``, cancels by ``qdel``.

    How a job ended is taken from the log that Cobalt writes beside its output, or from what its own script left behind.

    Args:
        channel: How the scheduler is reached; None: on this machine.
        nodes_per_block: Nodes of a job.
        init_blocks: Jobs at the start.
        min_blocks: Fewest jobs.
        max_blocks: Most jobs.
        parallelism: Wanted slots per active task.
        walltime: ``HH:MM:SS``; Cobalt counts whole minutes.
        account: Project to charge.
        queue: Queue; None: the default.
        scheduler_options: Lines put after the ``#COBALT`` directives.
        worker_init: Bash code run before the command.
        launcher: Multiplies the command on the nodes; None: ``AprunLauncher()``.
        cmd_timeout: Seconds a command of the scheduler may take.
        cores_per_node: Told to the command as FLOW_CORES; None: nothing. Cobalt gives whole nodes.
        mem_per_node: GB, told to the command as FLOW_MEMORY_GB; None: nothing.
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
        channel: Channel | None = None,
        nodes_per_block: int = 1,
        init_blocks: int = 1,
        min_blocks: int = 0,
        max_blocks: int = 10,
        parallelism: float = 1,
        walltime: str = "00:10:00",
        account: str | None = None,
        queue: str | None = None,
        scheduler_options: str = "",
        worker_init: str = "",
        launcher: object = None,
        cmd_timeout: float = 10,
        cores_per_node: int | None = None,
        mem_per_node: float | None = None,
    ) -> None:
        super().__init__(record_of(ClusterOptions, self))
        self.account = account
        self.queue = queue

    def script_values(self, job: JobFiles, tasks_per_node: int) -> dict[str, object]:  # noqa: D102
        return {
            "account": self.account,
            "queue": self.queue,
            "minutes": walltime_minutes(self.walltime),
            "log": _log_of(job),
        }

    def submit_command(self, job: JobFiles, name: str, tasks_per_node: int) -> str:  # noqa: D102
        return f"qsub {quote(job.script)}"

    def parse_submit(self, result: CommandResult) -> str | None:  # noqa: D102
        return parse_qsub(result.stdout)

    def query_command(self, job_ids: Sequence[str]) -> str:  # noqa: D102
        return f"qstat -lf {listed(job_ids, ' ')}"

    def parse_query(self, result: CommandResult) -> dict[str, JobStatus]:  # noqa: D102
        _insist(result)
        return parse_qstat(result.stdout)

    def history(self, job_ids: Sequence[str]) -> dict[str, JobStatus]:  # noqa: D102
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

    def cancel_command(self, job_ids: Sequence[str]) -> str:  # noqa: D102
        return f"qdel {listed(job_ids, ' ')}"

    def parse_cancel(self, result: CommandResult, job_ids: Sequence[str]) -> list[bool]:  # noqa: D102
        refused = parse_qdel_refusals(told(result, job_ids, *_UNKNOWN))
        return [job_id not in refused for job_id in job_ids]

    def find_command(self) -> str:  # noqa: D102
        return 'qstat -lf -u "$(id -un)"'

    def parse_find(self, result: CommandResult) -> dict[str, str]:  # noqa: D102
        _insist(result)
        return parse_names(result.stdout)


def _log_of(job: JobFiles) -> str:
    return f"{job.folder}/{job.stem}.cobaltlog"


def _insist(result: CommandResult) -> None:
    """Raise SchedulerUnavailable unless qstat answered: that it knows none of the jobs is an answer."""
    said = result.stderr.lower()
    knows_none = result.exit_code == 1 and (not said.strip() or any(text in said for text in _UNKNOWN))
    if result.exit_code != 0 and not knows_none:
        raise SchedulerUnavailable(f"qstat failed: {words(result)}")
