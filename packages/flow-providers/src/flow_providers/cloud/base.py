"""The base of cloud providers: a job is a machine that runs a command at its first boot and then switches itself off.

A cloud's own provider starts, lists and ends machines, and reads their consoles.
"""

from __future__ import annotations

import secrets
import time
from abc import abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from flow_providers.block_provider import check_copies
from flow_providers.cloud.machine import Machine, MachinePhase, status_of
from flow_providers.cloud.options import CloudOptions
from flow_providers.cloud.user_data import Boot, ConsoleReport, read_console, script_of
from flow_providers.errors import BadOption, ProviderError, SubmitException
from flow_providers.interfaces.job_extras import NO_EXTRAS, JobExtras
from flow_providers.interfaces.job_status import JobStatus
from flow_providers.jobs.tag import check_tag, check_variable, new_tag, safe_name
from flow_providers.jobs.tracked import TrackedProvider
from flow_providers.launchers.base import launch

TAG = "flow-tag"
"""Key of the tag that every machine of ours carries, with the job's tag as its value."""
# Seconds: clouds list a new machine with some delay, and a list may leave it out for a moment.
_MISSING_AFTER_S = 60.0
_CONSOLE_WITHIN_S = 180.0  # seconds; consoles of some machines come minutes after their end
_CONSOLES_A_QUERY = 10  # consoles of running machines read in one query: a call each, and clouds throttle calls
_KEPT_BYTES = 65536  # bytes of each of the two outputs of a job that are kept for tail()
_KEPT_REPORTS = 200  # ended jobs, so 26 MB at most; only the magnitude matters


@dataclass(frozen=True, slots=True)
class MachineOrder:
    """A machine to start.

    Attributes:
        name: Name for people, of letters, digits and ``-``, beginning with a letter, at most 60 long, unique.
        tag: The job's tag, to be carried by the machine.
        user_data: The script of its first boot.
    """

    name: str
    tag: str
    user_data: str


class CloudProvider(TrackedProvider):
    """Base of the providers of clouds.

    Subclasses implement the methods under "the cloud's own"; these are called by any thread and may block up to
    ``cmd_timeout``. Output and exit code of a job come by the console of its machine. A machine whose job has ended is
    ended, unless it is to linger.

    Args:
        options: The options that all of them share; a checked constructor fills it by ``record_of``.
    """

    spot_notice: str = ""
    """Bash command, run on the machine, that succeeds once the cloud has said that it takes the machine away; empty
    where it does not take machines away."""
    user_data_limit: int = 16384
    """Bytes that the cloud takes as user data."""
    settle_s: float = 3
    """Seconds a machine stays on after its job, for the console to be read."""
    reads_running_consoles: bool = False
    """Whether the console is lost when a machine goes off, and so must be read before."""
    console_within_s: float = _CONSOLE_WITHIN_S
    """Seconds after a machine's end in which its console may still arrive."""

    def __init__(self, options: CloudOptions) -> None:
        if options.nodes_per_block != 1:
            raise BadOption(
                f"{type(self).__name__}: nodes_per_block={options.nodes_per_block}, but a block is one machine here"
            )
        super().__init__(options, _MISSING_AFTER_S)
        self.linger = options.linger
        self._halted_at: dict[str, float] = {}
        self._reports: dict[str, ConsoleReport] = {}
        self._standing: set[str] = set()  # machines of jobs that were seen, by the last query
        self._next_console = 0

    # -- the cloud's own

    @abstractmethod
    def start_machine(self, order: MachineOrder) -> str:
        """Start a machine and return its id. SubmitException, SubmitUnknown, ExecutionProviderException: as submit."""

    @abstractmethod
    def list_machines(self, job_ids: Sequence[str] | None) -> list[Machine]:
        """Return those of the given machines, or of all, that carry a tag of ours. SchedulerUnavailable."""

    @abstractmethod
    def end_machines(self, job_ids: Sequence[str]) -> set[str]:
        """End machines that carry our tag, and return those that are gone or going. SchedulerUnavailable."""

    @abstractmethod
    def read_console(self, job_id: str) -> str:
        """Return the end of a machine's console; empty where there is none. SchedulerUnavailable."""

    # -- the provider

    def submit(
        self, command: str, tasks_per_node: int, job_name: str = "flow.auto", *, extras: JobExtras = NO_EXTRAS
    ) -> str:
        """Start a machine whose first boot runs the command, and return the machine's id.

        Raises:
            SubmitException: it was refused, or its script is larger than ``user_data_limit`` bytes.
            SubmitUnknown: the cloud did not answer; ``find`` by the tag says whether there is one.
        """
        check_copies(tasks_per_node)
        tag = check_tag(extras.tag or new_tag())
        # Not the tag alone: a user may give several jobs one tag, and names of machines must be unique.
        job = f"{tag}-{secrets.token_hex(3)}"
        script = script_of(self._boot(job, tag, launch(self.launcher, command, tasks_per_node, 1), extras))
        size = len(script.encode())
        if size > self.user_data_limit:
            raise SubmitException(
                f"job {job} was not submitted: its script has {size} bytes, and {self.label} takes "
                f"{self.user_data_limit}; put what worker_init and the command do into the image"
            )
        # Google takes lower case, digits and "-" only; the job's own part is kept whole, since it makes the
        # name unique.
        name = f"{safe_name(job_name, 60 - len(job) - 1)}-{job}".lower().replace("_", "-").replace(".", "-")
        return self.note_submitted(self.start_machine(MachineOrder(name, tag, script)))

    def query(self, job_ids: Sequence[str]) -> dict[str, JobStatus]:
        """Return the states of the machines that the cloud lists, with the ends of jobs by their consoles.

        Raises:
            SchedulerUnavailable: the cloud does not answer now.
        """
        machines = {machine.job_id: machine for machine in self.list_machines(job_ids)}
        now = time.monotonic()
        reports = self._read_consoles(list(machines.values()))
        with self._lock:
            # Remembered for jobs_ended, which runs right after this query and would otherwise ask again.
            self._standing = {job for job, machine in machines.items() if machine.stands}
        return {
            job: status_of(machine, reports.get(job, ConsoleReport()), self.walltime_s, self._is_patient(machine, now))
            for job, machine in machines.items()
        }

    def jobs_ended(self, job_ids: Sequence[str]) -> None:
        """End the machines of jobs that were just seen to have ended, unless they are to linger. Never raises."""
        with self._lock:
            left = [] if self.linger else [job for job in job_ids if job in self._standing]
        # The machine switches itself off in any case: a failure here only leaves one that is off.
        with suppress(ProviderError):
            if left:
                self.end_machines(left)

    def cancel(self, job_ids: Sequence[str]) -> list[bool]:
        """End the machines of jobs; one that is not listed any more is gone.

        Raises:
            SchedulerUnavailable: nothing was cancelled, or it is not known; do it again.
        """
        wanted = list(dict.fromkeys(job_ids))
        # Listed first, by tag: whatever ids a caller gives, a machine that is not ours is never ended.
        ours = [machine.job_id for machine in self.list_machines(wanted) if machine.stands] if wanted else []
        gone = self.end_machines(ours) if ours else set()
        kept = set(ours) - gone
        self.note_cancelled([job for job in wanted if job not in kept])
        return [job not in kept for job in job_ids]

    def find(self, tag_prefix: str) -> list[str]:
        """Return the ids of the machines whose tag starts with ``tag_prefix``; ended ones may be among them.

        Raises:
            SchedulerUnavailable: the cloud does not answer now.
        """
        return [machine.job_id for machine in self.list_machines(None) if machine.tag.startswith(tag_prefix)]

    def tail(self, job_id: str, max_bytes: int = 4096) -> tuple[str, str]:
        """Return the ends of the outputs of a job, by the report that is kept, else by its console now."""
        with self._lock:
            report = self._reports.get(job_id)
        with suppress(ProviderError):
            if report is None:
                machines = self.list_machines([job_id])
                report = read_console(self.read_console(job_id), machines[0].tag) if machines else None
        ends = (report or ConsoleReport()).tail(max_bytes)
        return ends.stdout, ends.stderr

    # -- internals

    def _boot(self, job: str, tag: str, command: str, extras: JobExtras) -> Boot:
        return Boot(
            job=job,
            tag=tag,
            command=command,
            worker_init=self.worker_init,
            environment=[(check_variable(name), value) for name, value in extras.environment],
            secrets=extras.secrets,
            walltime_s=int(self.walltime_s or 0),
            linger=self.linger,
            settle_s=self.settle_s,
            spot_notice=self.spot_notice,
        )

    def _read_consoles(self, machines: Sequence[Machine]) -> dict[str, ConsoleReport]:
        """Return the reports of the consoles of all halted machines, and of some running ones, in turn."""
        off = [m for m in machines if m.phase is MachinePhase.HALTED]
        on = [m for m in machines if m.phase is MachinePhase.RUNNING]
        if not (self.reads_running_consoles or self.linger):
            on = []
        # In turn, so that every running machine's console is read at some time, however many there are.
        first = self._next_console % max(len(on), 1)
        self._next_console = first + _CONSOLES_A_QUERY
        turn = (on[first:] + on[:first])[:_CONSOLES_A_QUERY]
        return {machine.job_id: self._report(machine) for machine in [*off, *turn]}

    def _report(self, machine: Machine) -> ConsoleReport:
        with self._lock:
            known = self._reports.get(machine.job_id)
        if known is not None:
            return known
        report = read_console(self.read_console(machine.job_id), machine.tag)
        # Only a final report is kept: an earlier one would hide the rest of the output.
        if report.exit:
            with self._lock:
                self._reports[machine.job_id] = report.tail(_KEPT_BYTES)
                # Dictionaries keep the order of insertion: the oldest report goes first.
                while len(self._reports) > _KEPT_REPORTS:
                    del self._reports[next(iter(self._reports))]
        return report

    def _is_patient(self, machine: Machine, now: float) -> bool:
        if machine.phase is not MachinePhase.HALTED:
            return True
        # Counted from the first query that saw the machine off, as clouds do not all say when it went off.
        return now - self._halted_at.setdefault(machine.job_id, now) < self.console_within_s
