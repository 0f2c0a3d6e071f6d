"""The provider of a collection of hosts, without any scheduler."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from threading import Lock
from typing import Annotated, TypeVar

from flow_providers.at_once import NotAnsweredError, at_once
from flow_providers.block_options import (
    AnyLauncher,
    BlockOptions,
    CmdTimeout,
    CoresPerNode,
    EnforceWalltime,
    MemPerNode,
    MinBlocks,
    MoveFiles,
    Parallelism,
    WorkerInit,
)
from flow_providers.block_provider import BlockProvider
from flow_providers.channels.ssh import SSHChannel
from flow_providers.errors import (
    BadOption,
    ChannelRequired,
    HostsAway,
    HostUnreachable,
    SchedulerUnavailable,
    SubmitException,
    SubmitUnknown,
)
from flow_providers.interfaces.channel import Channel
from flow_providers.interfaces.job_extras import NO_EXTRAS, JobExtras
from flow_providers.interfaces.job_state import JobState
from flow_providers.interfaces.job_status import JobStatus
from flow_providers.interfaces.locality import Locality
from flow_providers.local.provider import USUAL_WALLTIME, LocalProvider
from flow_providers.option_records import about, documented
from flow_providers.options import checked, record_of

T = TypeVar("T")
_SEPARATOR = ":"
# Seconds for which a host that was not reached is passed over: each attempt may take as long as a connection may.
_AWAY_S = 60.0
# Seconds that the end of a job waits for a host that did not answer the last question, or has not for as long.
_SILENT_S = 5.0
# Options that the user may change between two jobs and that each host's provider has a copy of; they once kept the
# values they were made with.
_OF_HOSTS = ("launcher", "worker_init", "walltime", "walltime_s", "cmd_timeout", "cores_per_node", "mem_per_node")

log = logging.getLogger("flow.providers.adhoc")


def channel_to(host: Channel | str) -> Channel:
    """Return the channel to a host that is given as ``[USER@]HOST[:PORT]``; a channel as it is.

    Raises:
        BadOption: the text names no host, or the port is no number.
    """
    if isinstance(host, Channel):
        return host
    user, at, place = host.rpartition("@")
    name, colon, port = place.rpartition(":")
    # An address of IPv6 has colons itself: with a port it is in brackets.
    if not colon or (":" in name and not name.endswith("]")):
        name, port = place, "22"
    name = name.removeprefix("[").removesuffix("]")
    if not name or not port.isdecimal() or (at and not user):
        raise BadOption(f"AdHocProvider: {host!r} is no host: give [USER@]HOST[:PORT], or a channel")
    return SSHChannel(name, username=user or None, port=int(port))


class _Host(LocalProvider):
    """The jobs of one host."""

    def ineffective_options(self) -> list[str]:
        """Return nothing: the provider of all hosts has the user's options, and says it once."""
        return []


@documented
class AdHocProvider(BlockProvider):
    """Starts jobs by the channels of several hosts, each on the host with the fewest; usually one job a host.

    A host that does not answer keeps its jobs' last known states; new jobs go to the others, as far as these have not
    their share of ``max_blocks``. It is named in a warning, and tried again after a minute.

    Raises (from the constructor):
        ChannelRequired: there is not one channel.
    """

    label = "adhoc"
    delivers_files = True

    @checked
    def __init__(
        self,
        channels: Annotated[
            Sequence[Channel | str],
            about(
                'One a host: ``"user@host"``, which ssh reaches by a key, or a channel. Their order must '
                "stay, since job ids count on it."
            ),
        ] = (),
        worker_init: WorkerInit = "",
        launcher: AnyLauncher = None,
        init_blocks: Annotated[int | None, about("Jobs at the start; None: one a host.")] = None,
        min_blocks: MinBlocks = 0,
        max_blocks: Annotated[int | None, about("Most jobs; None: one a host.")] = None,
        parallelism: Parallelism = 1,
        walltime: Annotated[
            str, about("``HH:MM:SS``; ends a job only where ``enforce_walltime`` is set.")
        ] = USUAL_WALLTIME,
        cmd_timeout: CmdTimeout = 30,
        move_files: MoveFiles = None,
        cores_per_node: CoresPerNode = None,
        mem_per_node: MemPerNode = None,
        enforce_walltime: EnforceWalltime = False,
    ) -> None:
        if not channels:
            raise ChannelRequired("AdHocProvider: option channels must have at least one channel, one for each host")
        blocks = {"init_blocks": init_blocks, "max_blocks": max_blocks}
        one_a_host = {name: len(channels) for name, value in blocks.items() if value is None}
        super().__init__(record_of(BlockOptions, self, **one_a_host))
        self.channels = [channel_to(channel) for channel in channels]
        self.move_files = move_files
        self.enforce_walltime = enforce_walltime
        self._hosts: list[LocalProvider] = [
            _Host(
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
        self._away: dict[int, tuple[float, str]] = {}  # hosts that were not reached: until when, and why
        self._silent: set[int] = set()  # hosts that did not answer the last question about their jobs
        self._asked: dict[int, float] = {}  # hosts that have been asked, and have not answered yet: since when

    def ineffective_options(self) -> list[str]:
        """Return a sentence for each option that was given and changes nothing beside the others."""
        found = super().ineffective_options()
        if self.walltime != USUAL_WALLTIME and not self.enforce_walltime:
            found.append(f"walltime={self.walltime!r} has no effect without enforce_walltime=True: no job is ended")
        return found

    def offer_script_dir(self, path: str) -> None:
        """Offer the directory to the channel of every host; channels to other machines keep their own."""
        for host in self._hosts:
            host.offer_script_dir(path)

    @property
    def locality(self) -> Locality:
        """The hosts of its channels: this machine if all are, else others."""
        here = all(channel.is_local for channel in self.channels)
        return Locality.THIS_MACHINE if here else Locality.ELSEWHERE

    @property
    def current_capacity(self) -> int:
        """Jobs submitted through this object, on all hosts, and not seen to have ended."""
        return sum(host.current_capacity for host in self._hosts)

    def submit(
        self, command: str, tasks_per_node: int, job_name: str = "flow.auto", *, extras: JobExtras = NO_EXTRAS
    ) -> str:
        """Start the job on the host with the fewest jobs, or on the next one where that host refuses it.

        Raises:
            HostsAway: the hosts that have room are away, and were passed over, or the others have their share.
            SubmitException: every host refused it; the text has the reason of each.
            SubmitUnknown: a host did not say whether it started the job; no other host is tried.
        """
        hosts = self._told()
        refusals, refused, tried, full = [], False, False, False
        share = math.ceil(self.max_blocks / len(hosts))
        # The load is counted with the submissions under way: several threads that submit at once would otherwise all
        # choose the same host.
        for index, load in self._by_load():
            if why := self._is_away(index):
                refusals.append(why)
                continue
            # In the place of a host that is away: two jobs on one host would each take all of its cores.
            if refusals and load >= share:
                full = True
                continue
            with self._lock:
                self._promised[index] += 1
            try:
                job = hosts[index].submit(command, tasks_per_node, job_name, extras=extras)
            # This host may run the job: started on another one as well, it would run twice.
            except SubmitUnknown:
                raise
            except SubmitException as error:
                if isinstance(error, HostUnreachable):
                    # Its cause: what is remembered is told of other jobs, too.
                    refusals.append(str(error.__cause__ or error))
                    self._was_away(index, refusals[-1])
                    tried = True
                else:
                    refusals.append(str(error))
                    refused = True
            else:
                self._is_back(index)
                return f"{index}{_SEPARATOR}{job}"
            finally:
                with self._lock:
                    self._promised[index] -= 1
        told = f"no host took the job: {'; '.join(refusals)}"
        if refused or (tried and not full):
            raise SubmitException(told)
        raise HostsAway(told, self._tried_again_in_s())

    def status(self, job_ids: Sequence[str]) -> list[JobStatus]:
        """Return the status of each job, asking all hosts at once; a silent host leaves the last known states.

        Raises:
            SchedulerUnavailable: not one of the hosts answered.
        """
        answers = self._ask(job_ids, lambda host, jobs: host.status(jobs))
        with self._lock:
            self._last.update(answers)
            return [answers.get(job_id) or self._remembered(job_id) for job_id in job_ids]

    def cancel(self, job_ids: Sequence[str]) -> list[bool]:
        """End jobs on all their hosts at once; False for each job whose host did not answer.

        A host that is known not to answer is waited for 5 s.

        Raises:
            SchedulerUnavailable: not one of the hosts answered.
        """
        answers = self._ask(job_ids, lambda host, jobs: host.cancel(jobs), self._patience_s)
        return [answers.get(job_id, False) for job_id in job_ids]

    def find(self, tag_prefix: str) -> list[str]:
        """Return the ids of the jobs of all hosts whose tag starts with ``tag_prefix``, asking all hosts at once.

        Raises:
            SchedulerUnavailable: a host did not answer; the error carries the jobs of the hosts that did.
        """
        hosts = self._told()
        # All hosts at once: one that does not answer costs cmd_timeout, not cmd_timeout for each of them.
        answers = at_once([partial(host.find, tag_prefix) for host in hosts])
        found: list[str] = []
        silent = []
        for index, answer in enumerate(answers):
            try:
                found.extend(f"{index}{_SEPARATOR}{job}" for job in answer.result())
            except SchedulerUnavailable as error:
                silent.append(str(error))
        # Not an empty answer: the sweep after a driver's death would take the jobs of a silent host for gone. What the
        # others know goes with the error, or a dead host would keep their jobs alive for ever.
        if silent:
            raise SchedulerUnavailable("; ".join(silent), found)
        return found

    def tail(self, job_id: str, max_bytes: int = 4096) -> tuple[str, str]:
        """Return the ends of the outputs of a job, read on its host; empty where the host is not one of these."""
        index, job = self._split(job_id)
        return ("", "") if index is None else self._told()[index].tail(job, max_bytes)

    def clear(self, job_ids: Sequence[str]) -> None:
        """Remove the files of jobs on all their hosts at once; nothing is removed where a host does not answer."""
        with suppress(SchedulerUnavailable):
            self._ask(job_ids, _cleared)

    def close(self) -> None:
        """Close the channels of all hosts. Idempotent; jobs go on."""
        for host in self._hosts:
            host.close()

    # -- internals

    def _told(self) -> list[LocalProvider]:
        """Return the providers of the hosts with the options of this one, which may have been changed meanwhile."""
        for host in self._hosts:
            for name in _OF_HOSTS:
                setattr(host, name, getattr(self, name))
        return self._hosts

    def _is_away(self, index: int) -> str:
        """Return why a host is passed over; empty where it is not."""
        with self._lock:
            until, why = self._away.get(index, (0.0, ""))
        return why if time.monotonic() < until else ""

    def _was_away(self, index: int, why: str) -> None:
        with self._lock:
            known = index in self._away
            self._away[index] = (time.monotonic() + _AWAY_S, why)
        if not known:
            others = f", of {len(self._hosts)} hosts, takes no jobs, which go to the others"
            what = others if len(self._hosts) > 1 else " takes no jobs, and is tried again after a minute"
            log.warning("%s%s: %s", self._name(index), what, why)

    def _tried_again_in_s(self) -> float:
        """Return when the first of the hosts that are away may be tried again."""
        with self._lock:
            return max(1.0, min((until for until, _ in self._away.values()), default=0.0) - time.monotonic())

    def _is_back(self, index: int) -> None:
        with self._lock:
            known = self._away.pop(index, None)
        if known:
            log.warning("%s takes jobs again", self._name(index))

    def _name(self, index: int) -> str:
        return str(getattr(self.channels[index], "hostname", f"host {index}"))

    def _by_load(self) -> list[tuple[int, int]]:
        with self._lock:
            loads = [host.current_capacity + self._promised[index] for index, host in enumerate(self._hosts)]
        return sorted(enumerate(loads), key=lambda host: host[1])

    def _split(self, job_id: str) -> tuple[int | None, str]:
        # Ids come from users and ledgers too, so an index that is no host of ours is an unknown job, not an
        # IndexError.
        index, found, job = job_id.partition(_SEPARATOR)
        known = bool(found) and index.isdecimal() and int(index) < len(self._hosts)
        return (int(index), job) if known else (None, job_id)

    def _patience_s(self, index: int) -> float | None:
        """Return how long a host is to be waited for; None: as long as it takes."""
        with self._lock:
            since = self._asked.get(index)
            silent = index in self._silent or (since is not None and time.monotonic() - since > _SILENT_S)
        return _SILENT_S if silent else None

    def _answer(self, index: int, question: Callable[[LocalProvider, list[str]], list[T]], jobs: list[str]) -> list[T]:
        """Ask a host, and remember whether it answered."""
        with self._lock:
            self._asked.setdefault(index, time.monotonic())
        try:
            answer = question(self._hosts[index], jobs)
        except SchedulerUnavailable:
            with self._lock:
                self._silent.add(index)
            raise
        else:
            with self._lock:
                self._silent.discard(index)
            return answer
        finally:
            with self._lock:
                self._asked.pop(index, None)

    def _ask(
        self,
        job_ids: Sequence[str],
        question: Callable[[LocalProvider, list[str]], list[T]],
        patience_s: Callable[[int], float | None] = lambda _: None,
    ) -> dict[str, T]:
        """Ask all hosts at once. SchedulerUnavailable: not one of them answered."""
        by_host: dict[int, list[str]] = {}
        for job_id in dict.fromkeys(job_ids):
            # A foreign id is asked of host 0, which answers that it is MISSING.
            by_host.setdefault(self._split(job_id)[0] or 0, []).append(job_id)
        if not by_host:
            return {}
        self._told()
        parts = at_once(
            [partial(self._answer, i, question, self._jobs(ids)) for i, ids in by_host.items()],
            [patience_s(i) for i in by_host],
        )
        answers: dict[str, T] = {}
        errors = []
        for (index, ids), part in zip(by_host.items(), parts, strict=True):
            try:
                answers.update(zip(ids, part.result(), strict=True))
            except SchedulerUnavailable as error:
                errors.append(error)
            except NotAnsweredError:
                errors.append(SchedulerUnavailable(f"{self._name(index)} does not answer"))
        if len(errors) == len(by_host):
            raise errors[0]
        return answers

    def _jobs(self, ids: Sequence[str]) -> list[str]:
        return [self._split(job_id)[1] for job_id in ids]

    def _remembered(self, job_id: str) -> JobStatus:
        last = self._last.get(job_id, JobStatus(JobState.UNKNOWN))
        return replace(last, message="its host does not answer now")


def _cleared(host: LocalProvider, jobs: Sequence[str]) -> list[None]:
    host.clear(jobs)
    return [None] * len(jobs)
