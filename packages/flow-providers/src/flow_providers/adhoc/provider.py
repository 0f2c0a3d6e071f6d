"""Jobs on a collection of hosts, without any scheduler."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Lock
from typing import TypeVar

from flow_providers.block_options import BlockOptions
from flow_providers.block_provider import BlockProvider
from flow_providers.errors import ChannelRequired, SchedulerUnavailable, SubmitException, SubmitUnknown
from flow_providers.interfaces.channel import Channel
from flow_providers.interfaces.job_extras import NO_EXTRAS, JobExtras
from flow_providers.interfaces.job_state import JobState
from flow_providers.interfaces.job_status import JobStatus
from flow_providers.local.provider import LocalProvider
from flow_providers.options import checked, record_of

T = TypeVar("T")
_SEPARATOR = ":"
_OF_HOSTS = ("launcher", "worker_init", "walltime", "walltime_s", "cmd_timeout", "cores_per_node", "mem_per_node")


class AdHocProvider(BlockProvider):
    """Starts jobs by the channels of several hosts, each on the host with the fewest; usually one job a host.

    A host that does not answer keeps its jobs' last known states; new jobs go to the others.

    Args:
        channels: One channel a host, usually ``SSHChannel``. Their order must stay, since job ids count on it.
        worker_init: Bash code run before the command.
        launcher: Multiplies the command on the host; None: ``SingleNodeLauncher()``.
        init_blocks: Jobs at the start; None: one a host.
        min_blocks: Fewest jobs.
        max_blocks: Most jobs; None: one a host.
        parallelism: Wanted slots per active task.
        walltime: ``HH:MM:SS``; ends a job only where ``enforce_walltime`` is set.
        cmd_timeout: Seconds a command over a channel may take.
        move_files: Accepted from other configurations: scripts always go through the channels.
        cores_per_node: Told to the command as FLOW_CORES; None: nothing.
        mem_per_node: GB, told to the command as FLOW_MEMORY_GB; None: nothing.
        enforce_walltime: Whether jobs are ended at their walltime.

    Raises (from the constructor):
        ChannelRequired: there is not one channel.
    """

    label = "adhoc"

    @checked
    def __init__(
        self,
        channels: Sequence[Channel] = (),
        worker_init: str = "",
        launcher: object = None,
        init_blocks: int | None = None,
        min_blocks: int = 0,
        max_blocks: int | None = None,
        parallelism: float = 1,
        walltime: str = "00:15:00",
        cmd_timeout: float = 30,
        move_files: bool | None = None,
        cores_per_node: int | None = None,
        mem_per_node: float | None = None,
        enforce_walltime: bool = False,
    ) -> None:
        if not channels:
            raise ChannelRequired("AdHocProvider: option channels must have at least one channel, one for each host")
        blocks = {"init_blocks": init_blocks, "max_blocks": max_blocks}
        one_a_host = {name: len(channels) for name, value in blocks.items() if value is None}
        super().__init__(record_of(BlockOptions, self, **one_a_host))
        self.channels = list(channels)
        self.move_files = move_files
        self.enforce_walltime = enforce_walltime
        self._hosts = [
            LocalProvider(
                channel=channel,
                launcher=launcher,
                walltime=walltime,
                worker_init=worker_init,
                cmd_timeout=cmd_timeout,
                cores_per_node=cores_per_node,
                mem_per_node=mem_per_node,
                enforce_walltime=enforce_walltime,
            )
            for channel in self.channels
        ]
        self.walltime_s = self._hosts[0].walltime_s
        self._lock = Lock()
        self._promised = [0] * len(self._hosts)  # submissions under way
        self._last: dict[str, JobStatus] = {}

    def offer_script_dir(self, path: str) -> None:  # noqa: D102
        for host in self._hosts:
            host.offer_script_dir(path)

    @property
    def current_capacity(self) -> int:  # noqa: D102
        return sum(host.current_capacity for host in self._hosts)

    def submit(  # noqa: D102
        self, command: str, tasks_per_node: int, job_name: str = "flow.auto", *, extras: JobExtras = NO_EXTRAS
    ) -> str:
        hosts = self._told()
        refusals = []
        for index in self._by_load():
            with self._lock:
                self._promised[index] += 1
            try:
                job = hosts[index].submit(command, tasks_per_node, job_name, extras=extras)
            except SubmitUnknown:
                raise
            except SubmitException as error:
                refusals.append(str(error))
            else:
                return f"{index}{_SEPARATOR}{job}"
            finally:
                with self._lock:
                    self._promised[index] -= 1
        raise SubmitException(f"no host took the job: {'; '.join(refusals)}")

    def status(self, job_ids: Sequence[str]) -> list[JobStatus]:  # noqa: D102
        answers = self._ask(job_ids, lambda host, jobs: host.status(jobs))
        with self._lock:
            self._last.update(answers)
            return [answers.get(job_id) or self._remembered(job_id) for job_id in job_ids]

    def cancel(self, job_ids: Sequence[str]) -> list[bool]:  # noqa: D102
        answers = self._ask(job_ids, lambda host, jobs: host.cancel(jobs))
        return [answers.get(job_id, False) for job_id in job_ids]

    def find(self, tag_prefix: str) -> list[str]:  # noqa: D102
        hosts = self._told()
        with ThreadPoolExecutor(len(hosts)) as pool:
            answers = [pool.submit(host.find, tag_prefix) for host in hosts]
        found: list[str] = []
        silent = []
        for index, answer in enumerate(answers):
            try:
                found.extend(f"{index}{_SEPARATOR}{job}" for job in answer.result())
            except SchedulerUnavailable as error:
                silent.append(str(error))
        if silent:
            raise SchedulerUnavailable("; ".join(silent), found)
        return found

    def tail(self, job_id: str, max_bytes: int = 4096) -> tuple[str, str]:  # noqa: D102
        index, job = self._split(job_id)
        return ("", "") if index is None else self._told()[index].tail(job, max_bytes)

    def close(self) -> None:  # noqa: D102
        for host in self._hosts:
            host.close()

    # -- how

    def _told(self) -> list[LocalProvider]:
        """Return the providers of the hosts with the options of this one, which may have been changed meanwhile."""
        for host in self._hosts:
            for name in _OF_HOSTS:
                setattr(host, name, getattr(self, name))
        return self._hosts

    def _by_load(self) -> list[int]:
        with self._lock:
            loads = [host.current_capacity + self._promised[index] for index, host in enumerate(self._hosts)]
        return sorted(range(len(self._hosts)), key=lambda index: loads[index])

    def _split(self, job_id: str) -> tuple[int | None, str]:
        index, found, job = job_id.partition(_SEPARATOR)
        known = bool(found) and index.isdecimal() and int(index) < len(self._hosts)
        return (int(index), job) if known else (None, job_id)

    def _ask(self, job_ids: Sequence[str], question: Callable[[LocalProvider, list[str]], list[T]]) -> dict[str, T]:
        """Ask all hosts at once. SchedulerUnavailable: not one of them answered."""
        by_host: dict[int, list[str]] = {}
        for job_id in dict.fromkeys(job_ids):
            by_host.setdefault(self._split(job_id)[0] or 0, []).append(job_id)
        if not by_host:
            return {}
        hosts = self._told()
        with ThreadPoolExecutor(len(by_host)) as pool:
            parts = [(ids, pool.submit(question, hosts[i], self._jobs(ids))) for i, ids in by_host.items()]
        answers: dict[str, T] = {}
        errors = []
        for ids, part in parts:
            try:
                answers.update(zip(ids, part.result(), strict=True))
            except SchedulerUnavailable as error:
                errors.append(error)
        if len(errors) == len(by_host):
            raise errors[0]
        return answers

    def _jobs(self, ids: Sequence[str]) -> list[str]:
        return [self._split(job_id)[1] for job_id in ids]

    def _remembered(self, job_id: str) -> JobStatus:
        last = self._last.get(job_id, JobStatus(JobState.UNKNOWN))
        return replace(last, message="its host does not answer now")
