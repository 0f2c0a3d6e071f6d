"""The base of the providers of the PBS family: ``qsub``, ``qstat``, ``qdel``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from shlex import quote
from typing import Annotated

from flow_providers.cluster.answers import listed, told, was_killed, words
from flow_providers.cluster.base import ClusterProvider
from flow_providers.cluster.local_time import with_zone
from flow_providers.cluster.pbs_parse import parse_names, parse_qstat, parse_qsub, parse_tracejob
from flow_providers.cluster.shared_disk import SharedDisk
from flow_providers.errors import SchedulerUnavailable
from flow_providers.interfaces.channel import CommandResult
from flow_providers.interfaces.job_status import JobStatus
from flow_providers.jobs.files import JobFiles
from flow_providers.option_records import about

# Texts of qdel and qstat, in lower case, about jobs that have left the queue: these failures are answers.
_UNKNOWN = ("unknown job", "job has finished")
_UNKNOWN_CODE = 153  # exit code of qstat and qdel for unknown jobs (PBSE_UNKJOBID, 15001, modulo 256)
_TRACE = "flow-trace-of "
# Days of server logs that tracejob reads; each is a large file, and a job is asked for soon after its end.
_TRACE_DAYS = 3
_REFUSED = ("unauthorized", "permission", "not authorized")

PBSSharedDisk = Annotated[
    SharedDisk,
    about(
        "Whether the nodes see the files of the host that submits. False: the job brings its secrets in its own text, "
        "which the server keeps from other users; its outputs come back as PBS brings them. ``'auto'``: each job finds "
        "out."
    ),
]


class PBSFamilyProvider(ClusterProvider):
    """Base of ``TorqueProvider`` and ``PBSProProvider``."""

    name_limit = 15  # characters; Torque and older PBS refuse longer names
    away = (
        "cannot connect to server",
        "cannot connect to specified server",
        "could not connect to",
        "connection refused",
        "communication failure",
        "pbs_iff: cannot",
        "end of file",
        "unable to contact slurm controller",
    )
    qstat = "qstat -f"
    """Command that prints all attributes of the jobs named after it."""

    def submit_command(self, job: JobFiles, name: str, tasks_per_node: int) -> str:
        """Return the ``qsub`` command with the job's name and the paths of its outputs."""
        # the paths again, since some wrappers of qsub do not read those in the script
        return f"qsub -N {quote(name)} -o {quote(job.stdout)} -e {quote(job.stderr)} {quote(job.script)}"

    def parse_submit(self, result: CommandResult) -> str | None:
        """Return the id that ``qsub`` printed, or None if it printed none."""
        return parse_qsub(result.stdout)

    def query_command(self, job_ids: Sequence[str]) -> str:
        """Return the ``qstat`` command for the given jobs, which also prints the host's time zone."""
        return with_zone(f"{self.qstat} {listed(job_ids, ' ')}")

    def parse_query(self, result: CommandResult) -> dict[str, JobStatus]:
        """Return the jobs that the answer lists, by id.

        Raises:
            SchedulerUnavailable: the command failed, and not because it knows none of the jobs.
        """
        self._insist(result)
        return self.with_ends(parse_qstat(result.stdout))

    def history(self, job_ids: Sequence[str]) -> dict[str, JobStatus]:
        """Return how jobs ended by ``tracejob``, where the host of the channel can read the server's logs.

        Raises:
            SchedulerUnavailable: the channel does not answer now.
        """
        # tracejob reads the server's logs: on other hosts it prints nothing
        trace = f'echo "{_TRACE}$id"; tracejob -q -n {_TRACE_DAYS} "$id" 2>/dev/null'
        said = self.run(f"for id in {listed(job_ids, ' ')}; do {trace}; done; true").stdout
        parts = (part.partition("\n") for part in said.split(_TRACE)[1:])
        rows = ((job_id, parse_tracejob(log)) for job_id, _, log in parts)
        return {job_id: row for job_id, row in rows if row is not None}

    def cancel_command(self, job_ids: Sequence[str]) -> str:
        """Return the ``qdel`` command for the given jobs."""
        return f"qdel {listed(job_ids, ' ')}"

    def parse_cancel(self, result: CommandResult, job_ids: Sequence[str]) -> list[bool]:
        """Return which of the jobs are gone or going, in the order asked.

        Raises:
            SchedulerUnavailable: the command failed without a word about the jobs.
        """
        said = self._output_of_qdel(result, job_ids)
        # One call for several jobs has one exit code: which job was refused stands only in its line.
        lines = [line for line in said.splitlines() if any(text in line.lower() for text in _REFUSED)]
        return [not any(re.search(rf"\b{re.escape(job_id)}\b", line) for line in lines) for job_id in job_ids]

    def find_command(self) -> str:
        """Return the command that lists the user's jobs with their names: by ``qselect``, else all of ``qstat -f``."""
        return (
            # qselect may be missing (in wrappers of other schedulers): then all jobs are listed, and names tell ours.
            'if flow_ids=$(qselect -u "$(id -un)" 2>/dev/null); '
            'then [ -z "$flow_ids" ] || qstat -f $flow_ids; else qstat -f; fi'
        )

    def parse_find(self, result: CommandResult) -> dict[str, str]:
        """Return job names by id.

        Raises:
            SchedulerUnavailable: the command failed.
        """
        self._insist(result)
        return parse_names(result.stdout)

    def _output_of_qdel(self, result: CommandResult, job_ids: Sequence[str]) -> str:
        """Return the output of qdel. SchedulerUnavailable: it failed, and not because of jobs that are gone."""
        if (result.stdout + result.stderr).strip() or was_killed(result):
            return told(result, job_ids, *_UNKNOWN)
        if result.exit_code != 0:  # some say of jobs that are gone nothing at all: then qstat must answer
            self.parse_query(self.run(self.query_command(job_ids)))
        return ""

    @staticmethod
    def _insist(result: CommandResult) -> None:
        """Raise SchedulerUnavailable unless qstat answered; unknown jobs among those queried are an answer."""
        said = result.stderr.lower()
        if result.exit_code not in (0, _UNKNOWN_CODE) and not any(text in said for text in _UNKNOWN):
            raise SchedulerUnavailable(f"qstat failed: {words(result)}")
