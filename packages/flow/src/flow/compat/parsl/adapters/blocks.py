"""Blocks, their states and the handlers of their failures, as Parsl names them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import IntEnum
from pathlib import Path
from typing import Any

from flow_core.errors import ExecutorBroken
from flow_providers.interfaces.job_state import JobState as FlowState
from flow_providers.interfaces.job_status import JobStatus as FlowStatus


class JobState(IntEnum):
    """State of a job, with Parsl's numbers."""

    UNKNOWN = 0
    PENDING = 1
    RUNNING = 2
    CANCELLED = 3
    COMPLETED = 4
    FAILED = 5
    TIMEOUT = 6
    HELD = 7
    MISSING = 8
    SCALED_IN = 9

    @property
    def terminal(self) -> bool:
        """Whether a job never leaves this state."""
        return FlowState[self.name].terminal


TERMINAL_STATES = [state for state in JobState if state.terminal]


class JobStatus:
    """State of a job, and what is known of its end."""

    SUMMARY_TRUNCATION_THRESHOLD = 2048

    def __init__(
        self,
        state: JobState | FlowState,
        message: str | None = None,
        exit_code: int | None = None,
        stdout_path: str | None = None,
        stderr_path: str | None = None,
    ) -> None:
        self.state = JobState[state.name]
        self.message = message
        self.exit_code = exit_code
        self.stdout_path, self.stderr_path = stdout_path, stderr_path

    @classmethod
    def of(cls, status: FlowStatus) -> JobStatus:
        """Return a status of Flow's in Parsl's terms."""
        told = " ".join(part for part in (status.reason, status.message) if part) or None
        return cls(status.state, told, status.exit_code, status.stdout_path, status.stderr_path)

    @property
    def terminal(self) -> bool:
        """Whether the job has ended for good."""
        return self.state.terminal

    @property
    def status_name(self) -> str:
        """The name of the state."""
        return self.state.name

    @property
    def stdout(self) -> str | None:
        """What the job wrote to standard output, None where that cannot be read here."""
        return _text(self.stdout_path)

    @property
    def stderr(self) -> str | None:
        """What the job wrote to standard error, None where that cannot be read here."""
        return _text(self.stderr_path)

    @property
    def stdout_summary(self) -> str | None:
        """The same, the middle left out where it is long."""
        return self._summary(self.stdout)

    @property
    def stderr_summary(self) -> str | None:
        """The same of standard error."""
        return self._summary(self.stderr)

    def _summary(self, text: str | None) -> str | None:
        most = self.SUMMARY_TRUNCATION_THRESHOLD
        if text is None or len(text) <= most:
            return text
        return f"{text[: most // 2]}\n...\n{text[-most // 2 :]}"

    def __repr__(self) -> str:
        return f"JobStatus({self.state!r}, message={self.message!r}, exit_code={self.exit_code!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, JobStatus) and vars(self) == vars(other)

    __hash__ = None  # type: ignore[assignment]  # it may change


def _text(path: str | None) -> str | None:
    try:
        return None if path is None else Path(path).read_text(errors="replace")
    except OSError:
        return None


def statuses(executor: Any) -> dict[str, JobStatus]:
    """Return the states of an executor's blocks, by their names."""
    return {name: JobStatus(state) for name, state in executor.status().items()}


class BadStateException(ExecutorBroken):
    """An executor that runs nothing any more; ``exception`` says why."""

    def __init__(self, executor: object, exception: BaseException | None = None) -> None:
        label = getattr(executor, "label", executor)
        super().__init__(f"executor {label!r} is in a bad state: {exception}")
        self.executor, self.exception = label, exception


class _Judged:
    """The executor as a handler of failures sees it: what it says of its state is Flow's answer."""

    def __init__(self, executor: object) -> None:
        self._executor = executor
        self.answer: BaseException | None = None

    def set_bad_state_and_fail_all(self, exception: BaseException) -> None:
        """Have all tasks fail with this exception."""
        self.answer = exception

    def __getattr__(self, name: str) -> Any:
        return getattr(self._executor, name)


Handler = Callable[[Any, dict[str, JobStatus]], object]


def in_flow(handler: Handler) -> Callable[[object, Mapping[str, FlowStatus]], BaseException | None]:
    """Return a handler for Flow, which answers by what it returns, of one that sets a bad state."""

    def judged(executor: object, failed: Mapping[str, FlowStatus]) -> BaseException | None:
        seen = _Judged(executor)
        handler(seen, {name: JobStatus.of(status) for name, status in failed.items()})
        return seen.answer

    return judged


def _failure(executor: Any, status: Mapping[str, JobStatus], failed: int) -> ExecutorBroken:
    told = [f"{name}: {one.status_name} {one.message or ''}".rstrip() for name, one in status.items() if one.terminal]
    return ExecutorBroken(
        f"executor {getattr(executor, 'label', executor)!r}: {failed} blocks failed: {'; '.join(told)}"
    )


def noop_error_handler(executor: Any, status: dict[str, JobStatus], threshold: int = 3) -> None:
    """Do nothing about failed blocks."""


def simple_error_handler(executor: Any, status: dict[str, JobStatus], threshold: int = 3) -> None:
    """Have all tasks fail once ``threshold`` blocks have ended and all of them failed."""
    failed = sum(one.state is JobState.FAILED for one in status.values())
    if len(status) >= threshold and failed == len(status):
        executor.set_bad_state_and_fail_all(_failure(executor, status, failed))


def windowed_error_handler(executor: Any, status: dict[str, JobStatus], threshold: int = 3) -> None:
    """Have all tasks fail once the last ``threshold`` of the blocks that have ended failed."""
    ended = [(int(name) if name.isdecimal() else 0, one) for name, one in status.items() if one.terminal]
    last = [one for _, one in sorted(ended, key=lambda pair: pair[0])][-threshold:]
    if len(last) >= threshold and all(one.state is JobState.FAILED for one in last):
        executor.set_bad_state_and_fail_all(_failure(executor, status, len(last)))


def manager_record(registration: Any, activity: Any = None) -> dict[str, Any]:
    """Return what is known of a manager, with Parsl's names; without what it does just now where nobody has said it."""
    does: dict[str, Any] = {}
    if activity is not None:
        takes = not (activity.held or activity.node_held or activity.cut_off)
        does = {
            "tasks": activity.tasks,
            "idle_duration": activity.idle_s,
            "active": takes,
            "draining": activity.draining,
        }
    return {
        "manager": registration.manager_id,
        "block_id": registration.block,
        "worker_count": registration.workers,
        "hostname": registration.node,
        "max_capacity": registration.workers + registration.prefetch,
        "python_version": registration.python,
        "parsl_version": registration.software,
        "pid": registration.pid,
        **does,
    }
