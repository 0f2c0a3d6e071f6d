"""The base of providers of batch schedulers: scripts, polling, time limits, retries, jobs that left the queue.

A scheduler's own provider is a template, its commands, and a parser of what they print.
"""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from shlex import quote
from threading import Lock

from flow_providers.block_provider import BlockProvider, check_copies
from flow_providers.channels.local import LocalChannel
from flow_providers.cluster.answers import ended_with, merged, was_killed, words
from flow_providers.cluster.options import ClusterOptions
from flow_providers.cluster.shared_disk import JobPayload, last_words, scrub_command
from flow_providers.errors import (
    ChannelError,
    ChannelTimeout,
    SchedulerUnavailable,
    SubmitException,
    SubmitUnknown,
)
from flow_providers.interfaces.channel import CommandResult
from flow_providers.interfaces.job_extras import NO_EXTRAS, JobExtras
from flow_providers.interfaces.job_status import JobStatus
from flow_providers.interfaces.locality import Locality
from flow_providers.jobs.files import Environment, JobFiles, script_dir_of, tail_of, write_job
from flow_providers.jobs.notices import notices_code
from flow_providers.jobs.tag import is_tagged, tagged_name
from flow_providers.jobs.tracker import JobTracker
from flow_providers.launchers.base import launch
from flow_providers.templates import render
from flow_providers.walltime import walltime_hms, walltime_seconds

_BATCH = 1000  # ids in one command: 10 to 30 kB, below the 128 kB that Linux takes in one argument
# Tries of a submission while the scheduler says it is away; executors try again later with longer pauses.
_SUBMIT_TRIES = 3


class ClusterProvider(BlockProvider):
    """Base of the providers of batch schedulers.

    Subclasses implement the methods under "the scheduler's own", with no state of their own.

    Args:
        options: The options that all of them share; a checked constructor fills it by ``record_of``.
    """

    package: str
    """Package of the template."""
    template: str = "script.sh.j2"
    away: tuple[str, ...] = ()
    """Texts, in lower case, by which a failed command reports that the scheduler does not answer now."""
    name_limit: int = 60
    """Longest job name the scheduler takes."""
    fresh_s: float = 1.0
    """Schedulers do not like to be asked often: seconds for which an answer holds."""
    pause_s: float = 1.0
    """Seconds before a submission is tried again when the scheduler was away."""
    missing_after_s: float = 60.0
    """Seconds after which a job that neither the queue nor the history knows counts as MISSING."""

    delivers_files = True
    tells_script: bool = False
    """Whether it may signal the job's script alone, which then tells what it has started."""
    redirects: bool = False
    """Whether a job that may be apart opens its outputs itself: the scheduler would not start it without them."""
    sandbox: str = ""
    """Directory of a job, as bash code, into which the scheduler brings its files; empty: it brings none."""
    report: str = ""
    """Bash code that hands ``$flow_said``, what a job says last, over to the scheduler; empty: it takes nothing."""

    walltime: str

    def __init__(self, options: ClusterOptions) -> None:
        super().__init__(options)
        self.channel = LocalChannel() if options.channel is None else options.channel
        self.scheduler_options = options.scheduler_options
        self.shared_disk = options.shared_disk
        self._lock = Lock()
        self._polling = Lock()  # one query at a time; callers that wait share its answer
        self._tracker = JobTracker(self.missing_after_s)
        self._files: dict[str, JobFiles] = {}
        self._pads: dict[str, bytes] = {}
        self._polled_at = float("-inf")
        self._polled: frozenset[str] = frozenset()

    # -- the scheduler's own

    @abstractmethod
    def submit_command(self, job: JobFiles, name: str, tasks_per_node: int) -> str:
        """Return the command that submits the job's script."""

    @abstractmethod
    def parse_submit(self, result: CommandResult) -> str | None:
        """Return the id that the submission printed, or None if it printed none."""

    @abstractmethod
    def query_command(self, job_ids: Sequence[str]) -> str:
        """Return the command that queries the queue for the given jobs."""

    @abstractmethod
    def parse_query(self, result: CommandResult) -> dict[str, JobStatus]:
        """Return the jobs the queue lists. SchedulerUnavailable: it did not answer."""

    @abstractmethod
    def cancel_command(self, job_ids: Sequence[str]) -> str:
        """Return the command that cancels jobs."""

    @abstractmethod
    def parse_cancel(self, result: CommandResult, job_ids: Sequence[str]) -> list[bool]:
        """Return for each job, in order, whether it is gone or going. SchedulerUnavailable: it did not answer."""

    @abstractmethod
    def find_command(self) -> str:
        """Return the command that lists the names of the user's jobs."""

    @abstractmethod
    def parse_find(self, result: CommandResult) -> dict[str, str]:
        """Return names by id. SchedulerUnavailable: it did not answer."""

    def history(self, job_ids: Sequence[str]) -> dict[str, JobStatus]:
        """Return the states of jobs that left the queue, as far as known. SchedulerUnavailable: it did not answer."""
        return {}

    def is_away(self, result: CommandResult) -> bool:
        """Return whether a failed command failed because the scheduler does not answer now."""
        said = f"{result.stderr}\n{result.stdout}".lower()
        return any(text in said for text in self.away)

    def script_values(self, job: JobFiles, tasks_per_node: int) -> dict[str, object]:
        """Return the values of the template beyond the common ones."""
        return {}

    def said(self, job_id: str) -> str:
        """Return what the scheduler shows of the remark of a job, in which ``report`` put its last words. May raise."""
        return ""

    def explained(self, status: JobStatus, job: JobFiles) -> JobStatus:
        """Return the status of an ended job with a word about its cause, where the scheduler's own does not name it."""
        return status

    def with_ends(self, rows: Mapping[str, JobStatus]) -> dict[str, JobStatus]:
        """Return rows with the end of each job by its walltime, for schedulers that report only the start."""
        limit = self.walltime_s or 0
        return {
            job_id: replace(row, ends_at=row.started_at + limit) if row.started_at else row
            for job_id, row in rows.items()
        }

    # -- the provider

    def offer_script_dir(self, path: str) -> None:
        """Offer the channel a directory of this machine for submit scripts; the user's own choice wins."""
        self.channel.offer_script_dir(path)

    @property
    def asks_for_use(self) -> bool:  # type: ignore[override]  # by its options
        """Whether jobs ask for what their commands use: where a job that asks for nothing gets a part of a node."""
        return self.shares_nodes

    @property
    def asked_cores(self) -> int | None:
        """Cores that a job asks for on each node: by the option, else what its command uses of a shared node."""
        return self.cores_per_node or (self.expected_use.cores if self.asks_for_use else None)

    @property
    def asked_memory_gb(self) -> float | None:
        """GB that a job asks for on each node, likewise."""
        return self.mem_per_node or (self.expected_use.memory_gb if self.asks_for_use else None)

    @property
    def locality(self) -> Locality:
        """Nodes that see the files of the channel's machine: which is this one, or another."""
        return Locality.SAME_FILES if self.channel.is_local else Locality.ELSEWHERE

    @property
    def current_capacity(self) -> int:
        """Jobs submitted through this object and not seen to have ended."""
        with self._lock:
            return len(self._tracker.live())

    def submit(
        self, command: str, tasks_per_node: int, job_name: str = "flow.auto", *, extras: JobExtras = NO_EXTRAS
    ) -> str:
        """Write the job's script over the channel, submit it, and return the scheduler's id.

        Tried up to three times while the scheduler says that it is away.

        Raises:
            SubmitException: surely not submitted.
            SubmitUnknown: the scheduler gave no usable answer, and no job with the tag can be found.
            ScriptPathError: the directory for scripts cannot be used.
        """
        check_copies(tasks_per_node)
        job = JobFiles.of(script_dir_of(self.channel), job_name, extras.tag, [name for name, _ in extras.secrets])
        name = tagged_name(job.tag, job_name, self.name_limit)
        payload = self._payload(extras)
        write_job(
            self.channel,
            job,
            extras,
            lambda environment: self._script(job, name, command, tasks_per_node, environment, payload),
            secrets_as_files=self.shared_disk is not False or bool(self.sandbox),
            beyond=True,
        )
        try:
            job_id = self._submit(job, self.submit_command(job, name, tasks_per_node))
        finally:
            # The scheduler has its own copy now, or did not take the job.
            if payload is not None and payload.secrets and not self.sandbox:
                self._tidy(scrub_command(job.script))
        with self._lock:
            self._tracker.submitted(job_id)
            self._files[job_id] = job
            if payload is not None and payload.report:
                self._pads[job_id] = payload.pad
        return job_id

    def status(self, job_ids: Sequence[str]) -> list[JobStatus]:
        """Return the status of each job; one query at a time, and its answer holds for ``fresh_s`` seconds.

        Raises:
            SchedulerUnavailable: nothing is known now; ask later, states are unchanged.
        """
        with self._polling:
            with self._lock:
                asked = self._tracker.asked(job_ids)
                live = self._tracker.live()
            if asked and not self._is_fresh(asked):
                # All live jobs in the same query: several blocks that are asked for one by one within fresh_s then
                # cost one query.
                self._poll(list(dict.fromkeys([*asked, *live])))
            with self._lock:
                return [self._with_files(job_id, self._tracker.status(job_id)) for job_id in job_ids]

    def cancel(self, job_ids: Sequence[str]) -> list[bool]:
        """Cancel jobs in batches; False for each job that the scheduler refuses to end.

        Raises:
            SchedulerUnavailable: it is not known which are going; do it again.
        """
        wanted = list(dict.fromkeys(job_ids))
        gone: set[str] = set()
        for i in range(0, len(wanted), _BATCH):
            batch = wanted[i : i + _BATCH]
            answers = self.parse_cancel(self.run(self.cancel_command(batch)), batch)
            gone.update(job_id for job_id, yes in zip(batch, answers, strict=True) if yes)
        with self._lock:
            for job_id in gone:
                self._tracker.cancelled(job_id)
            # The next status must ask: the last answer was given before the cancellation.
            self._polled = frozenset()
            ours = [job_id for job_id in gone if job_id in self._files and self._files[job_id].secret_names]
        # Of a job that never ran, or ran where it does not see them, nobody else removes them.
        self._remove_secrets(ours)
        return [job_id in gone for job_id in job_ids]

    def find(self, tag_prefix: str) -> list[str]:
        """Return the ids of the user's jobs whose tags begin with ``tag_prefix``, by their names.

        Raises:
            SchedulerUnavailable: the scheduler does not answer now.
        """
        names = self.parse_find(self.run(self.find_command()))
        return [job_id for job_id, name in names.items() if is_tagged(name, tag_prefix)]

    def tail(self, job_id: str, max_bytes: int = 4096) -> tuple[str, str]:
        """Return the ends of the output files of a job that was submitted here; empty where there are none.

        Of a job whose node does not share the disk: its last words on standard error, where the scheduler carries them.
        """
        job = self._files.get(job_id)
        if job is None:
            return "", ""
        out, err = (
            "".join(tail_of(self.channel, path, max_bytes, self.cmd_timeout) for path in paths)
            for paths in self.outputs(job)
        )
        return out, err or self._last_words(job_id, job)

    def outputs(self, job: JobFiles) -> tuple[Sequence[str], Sequence[str]]:
        """Return the files of a job's standard output and standard error."""
        return [job.stdout], [job.stderr]

    def clear(self, job_ids: Sequence[str]) -> None:
        """Remove the files of ended jobs behind the channel to another machine, and those that are a week old.

        On this machine they are in a directory of the user's, and stay.
        """
        if self.channel.is_local:
            return
        with self._lock:
            files = [self._files[job_id] for job_id in job_ids if job_id in self._files]
        if not files:
            return
        names = " ".join(f"{quote(f'{one.folder}/{one.stem}')}.*" for one in files)
        kinds = " -o ".join(f"-name '*.*.*.{kind}'" for kind in ("sh", "out", "err", "exit"))
        old = f"find {quote(files[0].folder)} -maxdepth 1 -type f -mtime +7 '(' {kinds} ')' -exec rm -f {{}} +"
        with suppress(ChannelError):
            self.channel.execute_wait(f"rm -rf {names}; {old}", walltime=self.cmd_timeout)

    def close(self) -> None:
        """Close the channel. Idempotent; jobs go on."""
        self.channel.close()

    # -- internals

    def run(self, command: str) -> CommandResult:
        """Run a command of the scheduler. SchedulerUnavailable: no answer in time, or it reported that it is away."""
        try:
            result = self.channel.execute_wait(command, walltime=self.cmd_timeout)
        except ChannelError as error:
            raise SchedulerUnavailable(f"the scheduler of {self.label} does not answer: {error}") from error
        if result.exit_code != 0 and self.is_away(result):
            raise SchedulerUnavailable(f"the scheduler of {self.label} does not answer: {words(result)}")
        return result

    def _payload(self, extras: JobExtras) -> JobPayload | None:
        """Return what a job brings along; None where all of it is on a disk that its nodes share."""
        if self.shared_disk is True:
            return None
        return JobPayload(
            self.shared_disk,
            extras.secrets,
            many_nodes=self.nodes_per_block > 1 and not self.sandbox,
            redirect=self.redirects,
            sandbox=self.sandbox,
            report=self.report,
        )

    def _last_words(self, job_id: str, job: JobFiles) -> str:
        pad = self._pads.get(job_id)
        try:
            return "" if pad is None else last_words(self.said(job_id), job.tag, pad)
        except SchedulerUnavailable:
            return ""

    def _script(
        self,
        job: JobFiles,
        name: str,
        command: str,
        tasks_per_node: int,
        environment: Environment,
        payload: JobPayload | None,
    ) -> str:
        values: dict[str, object] = {
            "job": job,
            "shared_disk": self.shared_disk,
            "name": name,
            "nodes_per_block": self.nodes_per_block,
            "tasks_per_node": tasks_per_node,
            "walltime": walltime_hms(walltime_seconds(self.walltime)),  # all schedulers understand that one
            "walltime_s": walltime_seconds(self.walltime),
            "cores_per_node": self.asked_cores,
            "mem_per_node": self.asked_memory_gb,
            "scheduler_options": self.scheduler_options,
            "body": render(
                "flow_providers.cluster",
                "body.sh.j2",
                {
                    "job": job,
                    "environment": environment,
                    "arrival": payload.arrival(job) if payload is not None else "",
                    "reports": payload is not None and bool(payload.report),
                    "cores_per_node": self.asked_cores,
                    "mem_per_node": self.asked_memory_gb,
                    "worker_init": self.worker_init,
                    "notices": notices_code() if self.tells_script else "",
                    "command": launch(self.launcher, command, tasks_per_node, self.nodes_per_block),
                },
            ),
        }
        return render(self.package, self.template, {**values, **self.script_values(job, tasks_per_node)})

    def _submit(self, job: JobFiles, command: str) -> str:
        for turn in range(_SUBMIT_TRIES):
            try:
                result = self.channel.execute_wait(command, walltime=self.cmd_timeout)
            # The scheduler may have taken the job before the command was killed.
            except ChannelTimeout as error:
                return self._found(job, str(error))
            except ChannelError as error:
                raise SubmitException(f"job {job.stem} was not submitted: {error}") from error
            job_id = self.parse_submit(result) if result.exit_code == 0 else None
            if job_id is not None:
                return job_id
            if result.exit_code == 0:
                return self._found(job, f"the scheduler's answer has no job id: {words(result)}")
            # Killed without a word: it may have been submitted all the same.
            if was_killed(result):
                return self._found(job, f"the command was killed: {words(result)}")
            if not self.is_away(result) or turn == _SUBMIT_TRIES - 1:
                break
            time.sleep(self.pause_s)
            if taken := self._look_for(job):  # it may have gone away between taking the job and saying so
                return taken[0]
        raise SubmitException(f"{self.label} refused job {job.stem} ({job.script}): {words(result)}")

    def _found(self, job: JobFiles, why: str) -> str:
        """Return the id of a job that may have been submitted. SubmitUnknown: it cannot be found now."""
        found = self._look_for(job)
        if not found:
            raise SubmitUnknown(f"it is not known whether {self.label} took job {job.stem}: {why}")
        return found[0]

    def _look_for(self, job: JobFiles) -> list[str]:
        """Return the ids of the jobs with the tag of a submission; none too where the scheduler does not say."""
        try:
            return self.find(job.tag)
        except SchedulerUnavailable:
            return []

    def _is_fresh(self, asked: Sequence[str]) -> bool:
        return time.monotonic() - self._polled_at < self.fresh_s and self._polled.issuperset(asked)

    def _poll(self, asked: Sequence[str]) -> None:
        rows: dict[str, JobStatus] = {}
        for i in range(0, len(asked), _BATCH):
            rows.update(self.parse_query(self.run(self.query_command(asked[i : i + _BATCH]))))
        with self._lock:
            # Two steps, with the lock free between them: the history is asked for only when the queue does not list a
            # job, and it is slow (sacct, qacct).
            absent = self._tracker.listed(time.monotonic(), asked, rows)
        history = self.history(absent) if absent else {}
        history = merged(history, self._left_behind([job_id for job_id in absent if job_id not in history]))
        with self._lock:
            self._tracker.looked_up(time.monotonic(), absent, history)
            ended = [job_id for job_id in asked if self._tracker.status(job_id).terminal and job_id in self._files]
        self._polled_at, self._polled = time.monotonic(), frozenset(asked)
        # Last, and its failure is ignored: the states are known, and the script removes its secrets itself when it
        # ends normally.
        self._remove_secrets(ended)

    def _left_behind(self, job_ids: Sequence[str]) -> dict[str, JobStatus]:
        """Return the ends of jobs by the exit codes that their scripts left, where the scheduler reports none."""
        # All files in one command: over ssh each command is a round trip.
        files = {self._files[job_id].exit_code: job_id for job_id in job_ids if job_id in self._files}
        if not files:
            return {}
        paths = " ".join(quote(path) for path in files)
        lines = self.run(f'for f in {paths}; do [ -s "$f" ] && echo "$(cat "$f") $f"; done; true').stdout.splitlines()
        found = (line.split(" ", 1) for line in lines if " " in line)
        return {files[path]: ended_with(code) for code, path in found if path in files and code.isdecimal()}

    def _remove_secrets(self, ended: Sequence[str]) -> None:
        """Remove secrets of ended jobs, whose own scripts may have been killed or never run."""
        if ended:
            self._tidy(f"rm -rf {' '.join(quote(self._files[job_id].secrets) for job_id in ended)}")

    def _tidy(self, command: str) -> None:
        try:
            self.channel.execute_wait(command, walltime=self.cmd_timeout)
        except ChannelError:
            return

    def _with_files(self, job_id: str, status: JobStatus) -> JobStatus:
        files = self._files.get(job_id)
        if files is None:
            return status
        out, err = (paths[0] for paths in self.outputs(files))
        status = replace(status, stdout_path=out, stderr_path=err)
        return self.explained(status, files) if status.terminal else status

    def _known(self, job_id: str) -> JobStatus:
        with self._lock:
            # Makes an id known that was never asked for, of another process perhaps.
            self._tracker.asked([job_id])
            return self._with_files(job_id, self._tracker.status(job_id))
