"""The blocks of one executor at its provider: submitted with ledger and tag, watched, cancelled, never left behind."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from flow_core.bounded_calls import BoundedCall, NoAnswerError
from flow_core.guard import named
from flow_core.termination import at_termination
from flow_executors.scaling.host import BlockOrder
from flow_executors.scaling.user_calls import UserCalls
from flow_providers.errors import ProviderError
from flow_providers.interfaces.job_extras import JobExtras
from flow_providers.interfaces.job_status import JobStatus
from flow_providers.interfaces.provider import ExecutionProvider
from flow_providers.jobs.accounted import AccountedProvider
from flow_providers.jobs.guardian import ReaperGuardian
from flow_providers.jobs.ledger import JobLedger, default_ledger

T = TypeVar("T")
# Bytes of a job's standard error that are fetched: enough for a traceback.
_TAIL_BYTES = 4096
# Seconds for that: these words are worth less than the next block, which waits for them.
_TAIL_S = 15.0
# Seconds that a provider's call may take beyond its commands. Only the magnitude matters.
_CALL_S = 60.0
# Commands that a call of a provider may need, each of which may take its ``cmd_timeout``.
_COMMANDS = 10
STATUS_WAIT_S = 5.0
"""Seconds that a turn of the scaling waits for states; a later turn takes those that come later. A provider that
did not come back held up the replacement of blocks for minutes."""


class ProviderFault(ProviderError):
    """A provider raised what no provider should, did not come back, or answered nonsense; the text names it."""


@dataclass(frozen=True, slots=True)
class _Poll:
    """A question for the states of jobs: which, to whom, and since when (``time.monotonic``)."""

    job_ids: tuple[str, ...]
    call: BoundedCall[list[JobStatus]]
    since: float


class BlockJobs:
    """The jobs of one executor's blocks. Any thread; every call may block for ``call_timeout_s``.

    Whatever the provider raises comes as a ProviderError, with the original as its cause.
    """

    def __init__(
        self,
        provider: ExecutionProvider,
        *,
        label: str,
        run_id: str,
        run_dir: Path,
        executor_dir: Path,
        logger: logging.Logger,
    ) -> None:
        """Prepare. Raises ProviderError: the provider cannot be used."""
        self._name = type(provider).__name__
        self._calls = UserCalls(f"flow-provider-{label}")
        self.call_timeout_s = _CALL_S + _COMMANDS * _seconds(getattr(provider, "cmd_timeout", 30.0))
        self._polls = UserCalls(f"flow-provider-{label}")  # its own: states that stay away hold up no other call
        self._poll: _Poll | None = None
        self._label = label
        self._logger = logger
        self._run_dir = run_dir
        self._home = _identity(run_dir)
        self._ask("offer_script_dir", lambda: provider.offer_script_dir(str(run_dir / "submit_scripts")))
        at_termination(_close_forwards)
        ledger = JobLedger(default_ledger(run_dir.parent))
        self._provider = AccountedProvider(provider, ledger, run_id=run_id, owner=label)
        self._reaper = ReaperGuardian(
            provider, ledger, run_id=run_id, owner=label, log_path=executor_dir / "reaper.log", logger=logger
        )

    def submit(self, block: str, order: BlockOrder) -> str:
        """Submit the job of a block and return its id. Raises ProviderError."""
        job_id = self._ask(
            "submit",
            lambda: self._provider.submit(
                order.command,
                1,
                f"flow.{self._label}.block-{block}",
                extras=JobExtras(
                    environment=order.environment, secrets=order.secrets, files=order.files, forward=order.forward
                ),
            ),
            # A job whose id comes after the deadline belongs to no block: it would run until its walltime.
            late=lambda late: self._provider.cancel([late]),
        )
        if not isinstance(job_id, str) or not job_id:
            raise ProviderFault(f"{self._name}.submit returned {job_id!r}: it must return the id of the job, a text")
        return job_id

    def status(self, job_ids: Sequence[str]) -> dict[str, JobStatus]:
        """Return the states of jobs by id; by one thread at a time.

        Where the provider takes longer than ``STATUS_WAIT_S`` nothing is known now, and the next call takes its answer,
        which is of the jobs that were asked for then. After ``call_timeout_s`` without an answer it is asked anew.

        Raises:
            ProviderError: nothing is known now.
        """
        if not job_ids:
            return {}
        poll = self._poll
        if poll is not None and time.monotonic() - poll.since > self.call_timeout_s:
            poll = self._given_up(poll)
        if poll is None:
            poll = self._poll = self._asked(tuple(job_ids))
        try:
            answers = self._told("status", lambda: poll.call.wait(STATUS_WAIT_S))
        finally:
            if poll.call.done:
                self._poll = None
        # Answers are matched by their order: one that is missing would shift all others.
        if len(answers) != len(poll.job_ids) or not all(isinstance(answer, JobStatus) for answer in answers):
            raise ProviderFault(
                f"{self._name}.status returned {answers!r:.200}: it must return one JobStatus for each of the "
                f"{len(poll.job_ids)} jobs"
            )
        return dict(zip(poll.job_ids, answers, strict=True))

    def _given_up(self, poll: _Poll) -> _Poll | None:
        """Ask anew where an answer stays away, but not for ever more often: each question holds a thread."""
        if self._polls.full:
            return poll
        self._polls.leave(poll.call)
        return None

    def _asked(self, job_ids: tuple[str, ...]) -> _Poll:
        name = f"flow-provider-{self._label}"
        return _Poll(job_ids, BoundedCall(name, lambda: list(self._provider.status(job_ids))), time.monotonic())

    def cancel(self, job_ids: Sequence[str], timeout_s: float | None = None) -> list[str]:
        """Cancel jobs; return those that could not be cancelled. Raises ProviderError."""
        if not job_ids:
            return []
        answers = self._ask("cancel", lambda: list(self._provider.cancel(job_ids)), timeout_s)
        if len(answers) != len(job_ids):
            raise ProviderFault(f"{self._name}.cancel returned {answers!r:.200}, not one answer for each job")
        return [job_id for job_id, gone in zip(job_ids, answers, strict=True) if not gone]

    def slow(self) -> list[str]:
        """Return calls of the provider that are waited for and take long, each as a clause. Any thread."""
        return self._calls.slow()

    def tails(self, jobs: Mapping[str, str]) -> dict[str, str]:
        """Return the end of standard error of each block's job (block -> job id). Never raises."""
        return {block: self._tail(job_id) if job_id else "" for block, job_id in jobs.items()}

    def _tail(self, job_id: str) -> str:
        try:
            return str(self._ask("tail", lambda: self._provider.tail(job_id, _TAIL_BYTES)[1], _TAIL_S))
        except ProviderError:
            return ""

    def clear(self, job_ids: Sequence[str], timeout_s: float | None = None) -> None:
        """Let the provider remove what jobs that ended well have left on other machines. Never raises."""
        if job_ids:
            try:
                self._ask("clear", lambda: self._provider.clear(job_ids), timeout_s)
            except ProviderError as error:
                self._logger.warning("%s: files of jobs may stay on other machines: %s", self._label, error)

    def tend(self) -> None:
        """Start or restart the reaper, which cancels the jobs if this process dies. Never raises."""
        self._reaper.tend()

    @property
    def moved(self) -> str:
        """What has become of the run's directory; empty while it is where it was."""
        now_is = _identity(self._run_dir)
        if now_is == self._home or not self._home:
            return ""
        if not now_is:
            return f"the run directory {self._run_dir} is gone: it was moved or removed"
        return f"the run directory {self._run_dir} was replaced by another one"

    def close(self) -> None:
        """Let the reaper go: no job is left for it. The provider itself is the user's, and may be used again."""
        self._reaper.close()

    def _ask(
        self,
        verb: str,
        function: Callable[[], T],
        timeout_s: float | None = None,
        late: Callable[[T], object] | None = None,
    ) -> T:
        limit_s = timeout_s or self.call_timeout_s
        return self._told(verb, lambda: self._calls.call(f"{self._name}.{verb}", function, limit_s, late))

    def _told(self, verb: str, answer: Callable[[], T]) -> T:
        """Return an answer of the provider. Raises ProviderError, whatever is wrong."""
        what = f"{self._name}.{verb}"
        try:
            return answer()
        except ProviderError:
            raise
        except NoAnswerError as error:
            raise ProviderFault(str(error) or f"{what} has not come back yet") from error
        except BaseException as error:
            raise ProviderFault(f"{what} raised {named(error)}") from error


def _seconds(value: object) -> float:
    return float(value) if isinstance(value, int | float) and 0 < value < 1e6 else 30.0


def _close_forwards() -> None:
    # Loaded with the first ssh channel, and until then there is nothing to close.
    if (forward := sys.modules.get("flow_providers.channels.ssh_forward")) is not None:
        forward.close_forwards()


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
