"""What the providers of the PBS family share: ``qsub``, ``qstat``, ``qdel``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from shlex import quote

from flow_providers.cluster.answers import listed, told, was_killed, words
from flow_providers.cluster.base import ClusterProvider
from flow_providers.cluster.local_time import with_zone
from flow_providers.cluster.pbs_parse import parse_names, parse_qstat, parse_qsub, parse_tracejob
from flow_providers.errors import SchedulerUnavailable
from flow_providers.interfaces.channel import CommandResult
from flow_providers.interfaces.job_status import JobStatus
from flow_providers.jobs.files import JobFiles

_UNKNOWN = ("unknown job", "job has finished")
_UNKNOWN_CODE = 153
_TRACE = "flow-trace-of "
_TRACE_DAYS = 3
_REFUSED = ("unauthorized", "permission", "not authorized")


class PBSFamilyProvider(ClusterProvider):
    """Base of ``TorqueProvider`` and ``PBSProProvider``."""

    name_limit = 15
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
    """Command that tells everything about the jobs named after it."""

    def submit_command(self, job: JobFiles, name: str, tasks_per_node: int) -> str:  # noqa: D102
        # the paths again, since some wrappers of qsub do not read those in the script
        return f"qsub -N {quote(name)} -o {quote(job.stdout)} -e {quote(job.stderr)} {quote(job.script)}"

    def parse_submit(self, result: CommandResult) -> str | None:  # noqa: D102
        return parse_qsub(result.stdout)

    def query_command(self, job_ids: Sequence[str]) -> str:  # noqa: D102
        return with_zone(f"{self.qstat} {listed(job_ids, ' ')}")

    def parse_query(self, result: CommandResult) -> dict[str, JobStatus]:  # noqa: D102
        self._insist(result)
        return self.with_ends(parse_qstat(result.stdout))

    def history(self, job_ids: Sequence[str]) -> dict[str, JobStatus]:  # noqa: D102
        # only hosts with the server's logs have something to say
        trace = f'echo "{_TRACE}$id"; tracejob -q -n {_TRACE_DAYS} "$id" 2>/dev/null'
        said = self.run(f"for id in {listed(job_ids, ' ')}; do {trace}; done; true").stdout
        parts = (part.partition("\n") for part in said.split(_TRACE)[1:])
        rows = ((job_id, parse_tracejob(log)) for job_id, _, log in parts)
        return {job_id: row for job_id, row in rows if row is not None}

    def cancel_command(self, job_ids: Sequence[str]) -> str:  # noqa: D102
        return f"qdel {listed(job_ids, ' ')}"

    def parse_cancel(self, result: CommandResult, job_ids: Sequence[str]) -> list[bool]:  # noqa: D102
        said = self._told(result, job_ids)
        lines = [line for line in said.splitlines() if any(text in line.lower() for text in _REFUSED)]
        return [not any(re.search(rf"\b{re.escape(job_id)}\b", line) for line in lines) for job_id in job_ids]

    def find_command(self) -> str:  # noqa: D102
        return (
            'if flow_ids=$(qselect -u "$(id -un)" 2>/dev/null); '
            'then [ -z "$flow_ids" ] || qstat -f $flow_ids; else qstat -f; fi'
        )

    def parse_find(self, result: CommandResult) -> dict[str, str]:  # noqa: D102
        self._insist(result)
        return parse_names(result.stdout)

    def _told(self, result: CommandResult, job_ids: Sequence[str]) -> str:
        """Return what qdel said. SchedulerUnavailable: it failed, and not because of jobs that are gone."""
        if (result.stdout + result.stderr).strip() or was_killed(result):
            return told(result, job_ids, *_UNKNOWN)
        if result.exit_code != 0:  # some say of jobs that are gone nothing at all: then qstat must answer
            self.parse_query(self.run(self.query_command(job_ids)))
        return ""

    @staticmethod
    def _insist(result: CommandResult) -> None:
        """Raise SchedulerUnavailable unless it answered: unknown jobs among those asked for are an answer."""
        said = result.stderr.lower()
        if result.exit_code not in (0, _UNKNOWN_CODE) and not any(text in said for text in _UNKNOWN):
            raise SchedulerUnavailable(f"qstat failed: {words(result)}")
