"""The local provider: jobs as plain processes on one host."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from hashlib import sha256
from importlib.resources import files as resources
from shlex import join
from threading import Lock
from typing import Annotated

from flow_providers.block_options import (
    AnyLauncher,
    BlockOptions,
    CmdTimeout,
    CoresPerNode,
    EnforceWalltime,
    InitBlocks,
    MaxBlocks,
    MemPerNode,
    MinBlocks,
    MoveFiles,
    Parallelism,
    WorkerInit,
)
from flow_providers.block_provider import BlockProvider, check_copies
from flow_providers.channels.local import LocalChannel
from flow_providers.errors import (
    NOT_REACHED,
    ChannelError,
    HostUnreachable,
    SchedulerUnavailable,
    SubmitException,
    SubmitUnknown,
)
from flow_providers.interfaces.channel import Channel, CommandResult
from flow_providers.interfaces.job_extras import NO_EXTRAS, JobExtras
from flow_providers.interfaces.job_status import JobStatus
from flow_providers.interfaces.locality import Locality
from flow_providers.jobs.files import Environment, JobFiles, script_dir_of, tail_of, write_job
from flow_providers.launchers.base import launch
from flow_providers.local.parse import parse_rows, status_of
from flow_providers.option_records import about, documented
from flow_providers.options import checked, record_of
from flow_providers.templates import render

_BATCH = 500  # ids in one command of some 40 kB; Linux takes 128 kB in one argument, and ssh sends it as one
_GRACE_S = 5  # seconds between TERM and KILL; jobs.sh waits as long after a walltime
_APPEARS_WITHIN_S = 2.0  # seconds; from the fork of a submitter that is then killed to the command that find sees
USUAL_WALLTIME = "00:15:00"
_NO_SCRIPT = 127  # exit code of a shell that finds no command of that name
_GONE = (3, _NO_SCRIPT)
"""Exit codes of ``jobs.sh`` without its directory, and of bash without ``jobs.sh``."""


@documented
class LocalProvider(BlockProvider):
    """Runs jobs as processes on the host of its channel, each leading a session and process group of its own.

    A job is recorded on disk, in the channel's script directory, with its process id and the time that process was
    born: another process can find, ask and cancel it later, and a recycled process id is never killed.
    """

    label = "local"
    delivers_files = True

    @checked
    def __init__(
        self,
        channel: Annotated[Channel | None, about("How the host is reached; None: this machine.")] = None,
        nodes_per_block: Annotated[
            int,
            about("Nodes of a job, for launchers that reach further, such as srun inside an allocation."),
        ] = 1,
        launcher: AnyLauncher = None,
        init_blocks: InitBlocks = 1,
        min_blocks: MinBlocks = 0,
        max_blocks: MaxBlocks = 10,
        walltime: Annotated[
            str,
            about(
                "``HH:MM:SS``; ends a job only where ``enforce_walltime`` is set, since nobody else waits for the host."
            ),
        ] = USUAL_WALLTIME,
        worker_init: WorkerInit = "",
        cmd_timeout: CmdTimeout = 30,
        parallelism: Parallelism = 1,
        move_files: MoveFiles = None,
        cores_per_node: CoresPerNode = None,
        mem_per_node: MemPerNode = None,
        enforce_walltime: EnforceWalltime = False,
    ) -> None:
        super().__init__(record_of(BlockOptions, self))
        self.channel = LocalChannel() if channel is None else channel
        self.move_files = move_files
        self.enforce_walltime = enforce_walltime
        # None, as the interface says it: otherwise nothing ends a job at its walltime.
        self.walltime_s = self.walltime_s if enforce_walltime else None
        # Here ``jobs.sh find`` waits for submissions under way; over ssh one may not have reached the host yet.
        if self.channel.is_local:
            self.appears_within_s = _APPEARS_WITHIN_S
        self._lock = Lock()
        self._folders: dict[str, str] = {}  # of jobs submitted here; the script directory may be another by now
        self._ended: set[str] = set()
        self._pushed: dict[str, str] = {}  # script directory -> where jobs.sh is
        self._records: dict[str, str] = {}  # what .pid has of each job, should its directory be moved or removed

    def ineffective_options(self) -> list[str]:
        """Return a sentence for each option that was given and changes nothing beside the others."""
        found = super().ineffective_options()
        if self.walltime != USUAL_WALLTIME and not self.enforce_walltime:
            found.append(f"walltime={self.walltime!r} has no effect without enforce_walltime=True: no job is ended")
        return found

    def offer_script_dir(self, path: str) -> None:
        """Offer the channel a directory of this machine for the files of jobs; the user's own choice wins."""
        self.channel.offer_script_dir(path)

    @property
    def locality(self) -> Locality:
        """The host of its channel: this machine, or another."""
        return Locality.THIS_MACHINE if self.channel.is_local else Locality.ELSEWHERE

    @property
    def current_capacity(self) -> int:
        """Jobs submitted through this object and not seen to have ended."""
        with self._lock:
            return len(self._folders.keys() - self._ended)

    def submit(
        self, command: str, tasks_per_node: int, job_name: str = "flow.auto", *, extras: JobExtras = NO_EXTRAS
    ) -> str:
        """Write the job's files over the channel, start its process, and return the job's id.

        Raises:
            SubmitException: it was not started.
            SubmitUnknown: the host did not answer; ``find`` by the tag says whether it runs.
            ScriptPathError: the directory cannot be used.
        """
        check_copies(tasks_per_node)
        try:
            folder = script_dir_of(self.channel)
        except NOT_REACHED as error:
            raise HostUnreachable(f"job {job_name} was not submitted: {error}") from error
        except ChannelError as error:
            raise SubmitException(f"job {job_name} was not submitted: {error}") from error
        job = JobFiles.of(folder, job_name, extras.tag)
        write_job(
            self.channel,
            job,
            extras,
            lambda environment: self._script(job, command, tasks_per_node, environment),
            beyond=self.nodes_per_block > 1,
        )
        self._start(job.folder, job.stem)
        with self._lock:
            # The directory of the submission, since offer_script_dir may have changed it when the job is asked for.
            self._folders[job.stem] = job.folder
        return job.stem

    def status(self, job_ids: Sequence[str]) -> list[JobStatus]:
        """Return the status of each job, with one command for each directory of jobs.

        Raises:
            SchedulerUnavailable: the host does not answer now.
        """
        # One command a directory, however many jobs: over ssh each command is a round trip.
        found: dict[str, JobStatus] = {}
        for folder, stems in self._by_folder(job_ids).items():
            rows = parse_rows(self._ask(folder, "status", stems))
            found.update({s: status_of(rows.get(s), folder, s, self.walltime_s) for s in stems})
        with self._lock:
            self._ended.update(s for s, status in found.items() if status.terminal)
        return [found[job_id] for job_id in job_ids]

    def cancel(self, job_ids: Sequence[str]) -> list[bool]:
        """End the process groups of jobs: TERM, then KILL after 5 s. Blocks that much longer than ``cmd_timeout``.

        Raises:
            SchedulerUnavailable: the host does not answer now; do it again.
        """
        gone: set[str] = set()
        for folder, stems in self._by_folder(job_ids).items():
            answer = self._ask(folder, "cancel", stems, str(_GRACE_S), extra_s=_GRACE_S)
            gone.update(line.removesuffix(" yes") for line in answer.splitlines() if line.endswith(" yes"))
        with self._lock:
            self._ended.update(gone)
        return [job_id in gone for job_id in job_ids]

    def find(self, tag_prefix: str) -> list[str]:
        """Return the ids of the jobs recorded in the script directory whose tag starts with ``tag_prefix``.

        Raises:
            SchedulerUnavailable: the host does not answer now.
        """
        folder = script_dir_of(self.channel)
        # Whoever looks for jobs must not make the directory: a wrong working directory would be littered.
        if not self._has(folder):
            return []
        return self._command(folder, "find", tag_prefix).stdout.split()

    def tail(self, job_id: str, max_bytes: int = 4096) -> tuple[str, str]:
        """Return the ends of the output files of a job; empty where they cannot be read."""
        files = JobFiles(self._folder_of(job_id), job_id, "")
        out, err = (tail_of(self.channel, path, max_bytes, self.cmd_timeout) for path in (files.stdout, files.stderr))
        return out, err

    def clear(self, job_ids: Sequence[str]) -> None:
        """Remove the files of ended jobs on another machine, and of any that ended a week ago or more.

        On this machine they are in a directory of the user's, and stay.
        """
        if self.channel.is_local:
            return
        for folder, stems in self._by_folder(job_ids).items():
            with suppress(SchedulerUnavailable):
                if self._has(folder) and self._command(folder, "clear", *stems).stdout.strip() == "empty":
                    with self._lock:
                        self._pushed.pop(folder, None)

    def close(self) -> None:
        """Close the channel. Idempotent; jobs go on."""
        self.channel.close()

    # -- internals

    def _folder_of(self, job_id: str) -> str:
        with self._lock:
            known = self._folders.get(job_id)
        return known or script_dir_of(self.channel)

    def _by_folder(self, job_ids: Sequence[str]) -> dict[str, list[str]]:
        by_folder: dict[str, list[str]] = {}
        for job_id in dict.fromkeys(job_ids):
            by_folder.setdefault(self._folder_of(job_id), []).append(job_id)
        return by_folder

    def _script(self, job: JobFiles, command: str, tasks_per_node: int, environment: Environment) -> str:
        return render(
            "flow_providers.local",
            "job.sh.j2",
            {
                "job_name": job.stem,
                "environment": environment,
                "cores_per_node": self.cores_per_node,
                "mem_per_node": self.mem_per_node,
                "worker_init": self.worker_init,
                "command": launch(self.launcher, command, tasks_per_node, self.nodes_per_block),
            },
        )

    def _start(self, folder: str, stem: str) -> None:
        limit = int(self.walltime_s or 0)
        try:
            result = self._command(folder, "start", stem, str(limit))
        # The command may have started the job before its answer got lost.
        except SchedulerUnavailable as error:
            raise SubmitUnknown(f"it is not known whether job {stem} was started: {error}") from error
        if result.exit_code != 0:
            raise SubmitException(f"job {stem} was not started: {result.stderr.strip() or result.stdout.strip()}")
        with self._lock:
            # What jobs.sh wrote to .pid: kept, so that _restored can write it again.
            self._records[stem] = result.stdout.strip().removeprefix(f"started {stem} ")

    def _ask(self, folder: str, verb: str, stems: Sequence[str], *before: str, extra_s: float = 0) -> str:
        if not self._has(folder):
            # No directory, no jobs: unknown jobs count as cancelled and as MISSING.
            return "".join(f"{stem} yes\n" for stem in stems) if verb == "cancel" else ""
        answers = []
        for i in range(0, len(stems), _BATCH):
            batch = stems[i : i + _BATCH]
            result = self._command(folder, verb, *before, *batch, extra_s=extra_s)
            if result.exit_code in _GONE and self._restored(folder, batch):
                result = self._command(folder, verb, *before, *batch, extra_s=extra_s)
            if result.exit_code != 0:
                raise SchedulerUnavailable(f"cannot ask for jobs in {folder}: {result.stderr.strip()}")
            answers.append(result.stdout)
        return "".join(answers)

    def _restored(self, folder: str, stems: Sequence[str]) -> bool:
        """Restore the records of our jobs' processes, where their directory was moved or removed.

        Without them, these jobs could be neither queried nor ended. Their end is then known by their processes.
        """
        with self._lock:
            records = {stem: self._records[stem] for stem in stems if stem in self._records}
            self._pushed.pop(folder, None)
        if not records:
            return False
        try:
            for stem, record in records.items():
                self.channel.push_bytes(f"{record}\n".encode(), f"{stem}.pid", folder)
                self.channel.push_bytes(b"# the directory of this job was moved or removed\n", f"{stem}.sh", folder)
        except ChannelError as error:
            raise SchedulerUnavailable(
                f"the directory of jobs {folder} is gone, and cannot be made: {error}"
            ) from error
        return True

    def _has(self, folder: str) -> bool:
        """Return whether a directory of jobs exists; looking for jobs must not make it."""
        with self._lock:
            if folder in self._pushed:
                return True
        try:
            return self.channel.isdir(folder)
        except ChannelError as error:
            raise SchedulerUnavailable(f"no answer about jobs in {folder}: {error}") from error

    def _command(self, folder: str, verb: str, *arguments: str, extra_s: float = 0) -> CommandResult:
        """Run ``jobs.sh`` on the host. SchedulerUnavailable: no answer."""
        try:
            script = self._jobs_script(folder)
            words = ["bash", script, folder, verb, *arguments]
            result = self.channel.execute_wait(join(words), walltime=self.cmd_timeout + extra_s)
            # Another process was the last to use the directory, and has removed it.
            if result.exit_code == _NO_SCRIPT and script in result.stderr and verb == "start":
                with self._lock:
                    self._pushed.pop(folder, None)
                words[1] = self._jobs_script(folder)
                result = self.channel.execute_wait(join(words), walltime=self.cmd_timeout + extra_s)
            return result
        except ChannelError as error:
            raise SchedulerUnavailable(f"no answer about jobs in {folder}: {error}") from error

    def _jobs_script(self, folder: str) -> str:
        """Bring ``jobs.sh`` to the host once a directory, and return its path there."""
        with self._lock:
            path = self._pushed.get(folder)
        if path is None:
            content = (resources("flow_providers.local") / "jobs.sh").read_bytes()
            # Named by content: several versions of this library may use one directory, each with its own script.
            name = f"flow-jobs-{sha256(content).hexdigest()[:12]}.sh"
            path = self.channel.push_bytes(content, name, folder, mode=0o700)
            with self._lock:
                self._pushed[folder] = path
        return path
