"""Jobs as plain processes on one host."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from importlib.resources import files as resources
from shlex import join
from threading import Lock

from flow_providers.block_options import BlockOptions
from flow_providers.block_provider import BlockProvider, check_copies
from flow_providers.channels.local import LocalChannel
from flow_providers.errors import (
    ChannelError,
    SchedulerUnavailable,
    SubmitException,
    SubmitUnknown,
)
from flow_providers.interfaces.channel import Channel, CommandResult
from flow_providers.interfaces.job_extras import NO_EXTRAS, JobExtras
from flow_providers.interfaces.job_status import JobStatus
from flow_providers.jobs.files import Environment, JobFiles, script_dir_of, tail_of, write_job
from flow_providers.launchers.base import launch
from flow_providers.local.parse import parse_rows, status_of
from flow_providers.options import checked, record_of
from flow_providers.templates import render

_BATCH = 500  # ids in one command, far below the longest argument a kernel takes
_GRACE_S = 5
_GONE = (3, 127)
"""Exit codes of ``jobs.sh`` without its directory, and of bash without ``jobs.sh``."""


class LocalProvider(BlockProvider):
    """Runs jobs as processes on the host of its channel, each leading a session and process group of its own.

    A job is recorded on disk, in the channel's script directory, with its process id and the time that process was
    born: another process can find, ask and cancel it later, and a recycled process id is never killed.

    Args:
        channel: How the host is reached; None: this machine.
        nodes_per_block: Nodes of a job, for launchers that reach further, such as srun inside an allocation.
        launcher: Multiplies the command on the nodes; None: ``SingleNodeLauncher()``.
        init_blocks: Jobs at the start.
        min_blocks: Fewest jobs.
        max_blocks: Most jobs.
        walltime: ``HH:MM:SS``; ends a job only where ``enforce_walltime`` is set, since nobody else waits for the host.
        worker_init: Bash code run before the command.
        cmd_timeout: Seconds a command over the channel may take.
        parallelism: Wanted slots per active task.
        move_files: Accepted from other configurations: scripts always go through the channel, which copies only where
            the host is another.
        cores_per_node: Told to the command as FLOW_CORES; None: nothing.
        mem_per_node: GB, told to the command as FLOW_MEMORY_GB; None: nothing.
        enforce_walltime: Whether jobs are ended at their walltime.
    """

    label = "local"

    @checked
    def __init__(
        self,
        channel: Channel | None = None,
        nodes_per_block: int = 1,
        launcher: object = None,
        init_blocks: int = 1,
        min_blocks: int = 0,
        max_blocks: int = 10,
        walltime: str = "00:15:00",
        worker_init: str = "",
        cmd_timeout: float = 30,
        parallelism: float = 1,
        move_files: bool | None = None,
        cores_per_node: int | None = None,
        mem_per_node: float | None = None,
        enforce_walltime: bool = False,
    ) -> None:
        super().__init__(record_of(BlockOptions, self))
        self.channel = LocalChannel() if channel is None else channel
        self.move_files = move_files
        self.enforce_walltime = enforce_walltime
        self.walltime_s = self.walltime_s if enforce_walltime else None
        self._lock = Lock()
        self._folders: dict[str, str] = {}  # of jobs submitted here; the script directory may be another by now
        self._ended: set[str] = set()
        self._pushed: dict[str, str] = {}  # script directory -> where jobs.sh is
        self._records: dict[str, str] = {}  # what .pid has of each job, should its directory be moved or removed

    def offer_script_dir(self, path: str) -> None:  # noqa: D102
        self.channel.offer_script_dir(path)

    @property
    def current_capacity(self) -> int:  # noqa: D102
        with self._lock:
            return len(self._folders.keys() - self._ended)

    def submit(  # noqa: D102
        self, command: str, tasks_per_node: int, job_name: str = "flow.auto", *, extras: JobExtras = NO_EXTRAS
    ) -> str:
        check_copies(tasks_per_node)
        job = JobFiles.of(script_dir_of(self.channel), job_name, extras.tag)
        write_job(
            self.channel, job, extras, lambda environment: self._script(job, command, tasks_per_node, environment)
        )
        self._start(job.folder, job.stem)
        with self._lock:
            self._folders[job.stem] = job.folder
        return job.stem

    def status(self, job_ids: Sequence[str]) -> list[JobStatus]:  # noqa: D102
        found: dict[str, JobStatus] = {}
        for folder, stems in self._by_folder(job_ids).items():
            rows = parse_rows(self._ask(folder, "status", stems))
            found.update({s: status_of(rows.get(s), folder, s, self.walltime_s) for s in stems})
        with self._lock:
            self._ended.update(s for s, status in found.items() if status.terminal)
        return [found[job_id] for job_id in job_ids]

    def cancel(self, job_ids: Sequence[str]) -> list[bool]:  # noqa: D102
        gone: set[str] = set()
        for folder, stems in self._by_folder(job_ids).items():
            answer = self._ask(folder, "cancel", stems, str(_GRACE_S), extra_s=_GRACE_S)
            gone.update(line.removesuffix(" yes") for line in answer.splitlines() if line.endswith(" yes"))
        with self._lock:
            self._ended.update(gone)
        return [job_id in gone for job_id in job_ids]

    def find(self, tag_prefix: str) -> list[str]:  # noqa: D102
        folder = script_dir_of(self.channel)
        if not self._has(folder):
            return []
        return self._command(folder, "find", tag_prefix).stdout.split()

    def tail(self, job_id: str, max_bytes: int = 4096) -> tuple[str, str]:  # noqa: D102
        files = JobFiles(self._folder_of(job_id), job_id, "")
        out, err = (tail_of(self.channel, path, max_bytes, self.cmd_timeout) for path in (files.stdout, files.stderr))
        return out, err

    def close(self) -> None:  # noqa: D102
        self.channel.close()

    # -- how

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
        except SchedulerUnavailable as error:
            raise SubmitUnknown(f"it is not known whether job {stem} was started: {error}") from error
        if result.exit_code != 0:
            raise SubmitException(f"job {stem} was not started: {result.stderr.strip() or result.stdout.strip()}")
        with self._lock:
            self._records[stem] = result.stdout.strip().removeprefix(f"started {stem} ")

    def _ask(self, folder: str, verb: str, stems: Sequence[str], *before: str, extra_s: float = 0) -> str:
        if not self._has(folder):
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
        """Bring back what tells our jobs' processes, where somebody moved or removed the directory.

        Else nobody could ask for these jobs any more, or end them. How they end is then known from their processes.
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
        """Return whether a directory of jobs exists: whoever looks for jobs must not make it."""
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
            return self.channel.execute_wait(
                join(["bash", script, folder, verb, *arguments]), walltime=self.cmd_timeout + extra_s
            )
        except ChannelError as error:
            raise SchedulerUnavailable(f"no answer about jobs in {folder}: {error}") from error

    def _jobs_script(self, folder: str) -> str:
        """Bring ``jobs.sh`` to the host once a directory, and return its path there."""
        with self._lock:
            path = self._pushed.get(folder)
        if path is None:
            content = (resources("flow_providers.local") / "jobs.sh").read_bytes()
            name = f"flow-jobs-{sha256(content).hexdigest()[:12]}.sh"
            path = self.channel.push_bytes(content, name, folder, mode=0o700)
            with self._lock:
                self._pushed[folder] = path
        return path
