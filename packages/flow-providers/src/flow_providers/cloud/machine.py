"""Machines of a cloud as every cloud's provider sees them, and the states of jobs by them. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from flow_providers.cloud.user_data import ConsoleReport
from flow_providers.exit_codes import signal_of
from flow_providers.interfaces.job_state import JobState
from flow_providers.interfaces.job_status import JobStatus


class MachinePhase(Enum):
    """Where a machine is in its life."""

    STARTING = 0
    """Asked for; not on yet."""
    RUNNING = 1
    """On, or being switched off."""
    HALTED = 2
    """It switched itself off: its job's command has ended, or somebody on it did that."""
    ENDED = 3
    """Somebody asked the cloud to end it."""
    FAILED = 4
    """The cloud could not start it, or took it away."""


@dataclass(frozen=True, slots=True)
class Machine:
    """One machine that carries a tag of ours.

    Attributes:
        job_id: The provider's id of the job.
        tag: The tag of its job.
        phase: Where it is in its life.
        reason: The cloud's own short reason.
        message: The cloud's own words.
        node: Address or name.
        started_at: Seconds since the epoch.
        stands: Whether it still exists, and so costs something.
    """

    job_id: str
    tag: str
    phase: MachinePhase
    reason: str = ""
    message: str = ""
    node: str = ""
    started_at: float | None = None
    stands: bool = True


_STATES = {
    MachinePhase.STARTING: JobState.PENDING,
    MachinePhase.RUNNING: JobState.RUNNING,
    MachinePhase.ENDED: JobState.CANCELLED,
    MachinePhase.FAILED: JobState.FAILED,
}


def status_of(machine: Machine, report: ConsoleReport, walltime_s: float | None, patient: bool) -> JobStatus:
    """Return the status of a machine's job.

    Args:
        machine: The machine.
        report: The outputs and the end of the job, by its console.
        walltime_s: The limit of its job.
        patient: Whether the console of a machine that halted may still tell how its job ended.
    """
    # The console counts more than the machine: an end that stands there is final, whatever became of the machine
    # since.
    state, reason, message, code = _ended(report) if report.exit else _living(machine, patient)
    return JobStatus(
        state,
        reason or machine.reason,
        message or machine.message,
        exit_code=code,
        signal=signal_of(code),
        nodes=(machine.node,) if machine.node else (),
        started_at=machine.started_at,
        ends_at=None if machine.started_at is None or walltime_s is None else machine.started_at + walltime_s,
    )


def _living(machine: Machine, patient: bool) -> tuple[JobState, str, str, int | None]:
    if machine.phase is not MachinePhase.HALTED:
        return _STATES[machine.phase], "", "", None
    if patient:
        return JobState.UNKNOWN, "", "the machine is off; its console does not tell yet how the job ended", None
    return (
        JobState.MISSING,
        "",
        "the machine switched itself off, and its console does not tell how the job ended",
        None,
    )


def _ended(report: ConsoleReport) -> tuple[JobState, str, str, int | None]:
    if report.exit == "timeout":
        return JobState.TIMEOUT, "Walltime", "", None
    if not report.exit.isdecimal():
        return JobState.FAILED, report.exit.capitalize(), "the machine started anew in the middle of the job", None
    code = int(report.exit)
    return (JobState.COMPLETED if code == 0 else JobState.FAILED), "", "", code
