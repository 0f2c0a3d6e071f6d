"""The contract of providers, as a pytest class to inherit from. Needs pytest; import it in tests only.

    class TestMine(ProviderContract):
        @pytest.fixture
        def provider(self):
            yield MyProvider(...)

Each test submits real jobs to the real scheduler, or to a program that simulates it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import pytest

from flow_providers.errors import BadOption, SchedulerUnavailable
from flow_providers.interfaces.job_extras import JobExtras, secret_variable
from flow_providers.interfaces.job_state import JobState
from flow_providers.interfaces.job_status import JobStatus
from flow_providers.interfaces.provider import ExecutionProvider
from flow_providers.jobs.tag import new_tag

NO_JOB = "99999999"
T = TypeVar("T")


class ProviderContract:
    """Tests that every ``ExecutionProvider`` passes. Subclasses give the fixture ``provider`` and may set the rest."""

    patience_s: float = 45.0
    """Seconds that a job may take to reach the state a test waits for."""
    poll_s: float = 0.1
    """Seconds between two queries of a waiting test."""
    knows_exit_codes: bool = True
    """Whether the scheduler tells exit codes."""
    unknown_job: str = NO_JOB
    """A well-formed id that no job has."""

    @pytest.fixture
    def provider(self) -> ExecutionProvider:
        """Return the provider under test."""
        raise NotImplementedError("override the fixture `provider`")

    # -- the life of a job

    def test_a_job_runs_and_completes(self, provider: ExecutionProvider) -> None:
        """A job ends as COMPLETED, and its output can be read."""
        job = provider.submit("echo hello", 1)
        status = self.until_ended(provider, job)
        assert status.state is JobState.COMPLETED, status
        assert "hello" in self.output_with(provider, job, "hello")

    def test_a_failing_job_says_how(self, provider: ExecutionProvider) -> None:
        """A job that exits with 3 is FAILED with exit code 3."""
        job = provider.submit("echo oops >&2; exit 3", 1)
        status = self.until_ended(provider, job)
        assert status.state is JobState.FAILED, status
        if self.knows_exit_codes:
            assert status.exit_code == 3, status

    def test_a_running_job_is_running_and_can_be_cancelled(self, provider: ExecutionProvider) -> None:
        """Cancelling twice is the same as once; the job is CANCELLED and capacity goes back."""
        job = provider.submit("echo started; sleep 600", 1)
        with self.surely_ended(provider, [job]):
            self.until(provider, job, lambda status: status.state is JobState.RUNNING)
            assert provider.current_capacity == 1
            assert provider.cancel([job]) == [True]
            assert provider.cancel([job]) == [True]
            status = self.until_ended(provider, job)
            assert status.state in {JobState.CANCELLED, JobState.MISSING}, status
            assert provider.current_capacity == 0

    def test_an_ended_job_stays_ended_and_cancelling_it_is_harmless(self, provider: ExecutionProvider) -> None:
        """A terminal state does not change."""
        job = provider.submit("true", 1)
        ended = self.until_ended(provider, job).state
        assert provider.cancel([job]) == [True]
        assert provider.status([job])[0].state is ended

    def test_several_copies_run_on_a_node(self, provider: ExecutionProvider) -> None:
        """``tasks_per_node`` copies of the command run."""
        job = provider.submit("echo copy", 3)
        assert self.until_ended(provider, job).state is JobState.COMPLETED
        assert self.output_with(provider, job, "copy\n", 3).count("copy") == 3

    def test_many_jobs_are_asked_for_at_once_in_order(self, provider: ExecutionProvider) -> None:
        """``status`` answers in the order asked, unknown jobs and repeats included."""
        good, bad = provider.submit("true", 1), provider.submit("exit 1", 1)
        self.until_ended(provider, good)
        self.until_ended(provider, bad)
        asked = [bad, self.unknown_job, good, bad]
        states = [status.state for status in self.patiently(lambda: provider.status(asked))]
        assert states == [JobState.FAILED, JobState.MISSING, JobState.COMPLETED, JobState.FAILED]

    # -- unknown jobs

    def test_an_unknown_job_is_missing_and_cancelling_it_is_harmless(self, provider: ExecutionProvider) -> None:
        """An unknown id is MISSING, and cancelling it counts as done."""
        assert provider.status([self.unknown_job])[0].state is JobState.MISSING
        assert provider.cancel([self.unknown_job]) == [True]

    def test_no_jobs_is_no_question(self, provider: ExecutionProvider) -> None:
        """Empty lists are answered by empty lists."""
        assert provider.status([]) == []
        assert provider.cancel([]) == []

    def test_one_id_is_no_list_of_ids(self, provider: ExecutionProvider) -> None:
        """A single text where a list is meant is refused, never taken letter by letter."""
        with pytest.raises(BadOption):
            provider.status(self.unknown_job)
        with pytest.raises(BadOption):
            provider.cancel(self.unknown_job)

    # -- tag, environment and secrets of a job

    def test_a_job_is_found_by_the_beginning_of_its_tag(self, provider: ExecutionProvider) -> None:
        """``find`` sees a job by its tag, and no other."""
        tag = new_tag()
        job = provider.submit("sleep 600", 1, extras=JobExtras(tag=tag))
        with self.surely_ended(provider, [job]):
            assert self.patiently(lambda: provider.find(tag[:9])) == [job]
            assert provider.find(new_tag()) == []

    def test_the_environment_arrives(self, provider: ExecutionProvider) -> None:
        """Variables arrive unharmed, whatever they contain."""
        awkward = 'it\'s $HOME "x" `y`; *'
        job = provider.submit(
            'printf "<%s>\\n" "$FLOW_TEST"', 1, extras=JobExtras(environment=(("FLOW_TEST", awkward),))
        )
        self.until_ended(provider, job)
        assert f"<{awkward}>" in self.output_with(provider, job, "<")

    def test_secrets_arrive_as_private_files(self, provider: ExecutionProvider) -> None:
        """A secret is a file of mode 0600 whose path is in a variable."""
        path = secret_variable("block key")
        job = provider.submit(
            f'cat "${path}"; stat -c %a "${path}"', 1, extras=JobExtras(secrets=(("block key", b"open sesame\n"),))
        )
        self.until_ended(provider, job)
        assert "open sesame\n600\n" in self.output_with(provider, job, "600")

    def test_quotes_and_lines_of_a_command_survive(self, provider: ExecutionProvider) -> None:
        """The command may be any bash code."""
        job = provider.submit("for x in 'a b' \"c'd\"; do\n  echo \"<$x>\"\ndone\nprintf '%s\\n' 'last $line'", 1)
        assert self.until_ended(provider, job).state is JobState.COMPLETED
        assert "<a b>\n<c'd>\nlast $line\n" in self.output_with(provider, job, "last")

    def test_jobs_of_one_name_are_different_jobs(self, provider: ExecutionProvider) -> None:
        """Jobs of one name have different ids."""
        jobs = [provider.submit("true", 1, "same name!") for _ in range(3)]
        assert len(set(jobs)) == 3
        for job in jobs:
            assert self.until_ended(provider, job).state is JobState.COMPLETED

    # -- for tests of one provider's own

    def until(self, provider: ExecutionProvider, job: str, arrived: Callable[[JobStatus], bool]) -> JobStatus:
        """Return the first status that ``arrived``; fail when it takes too long."""
        last: JobStatus | None = None
        deadline = time.monotonic() + self.patience_s
        while time.monotonic() < deadline:
            try:
                last = provider.status([job])[0]
            except SchedulerUnavailable:
                pass
            else:
                if arrived(last):
                    return last
            time.sleep(self.poll_s)
        raise AssertionError(
            f"job {job} did not get there in {self.patience_s:g} s; last: {last}, {provider.tail(job)}"
        )

    def until_ended(self, provider: ExecutionProvider, job: str) -> JobStatus:
        """Return the job's terminal status."""
        return self.until(provider, job, lambda status: status.terminal)

    def output_with(self, provider: ExecutionProvider, job: str, text: str, times: int = 1) -> str:
        """Return the job's standard output once it has ``text``: some schedulers copy it after the job's end."""
        deadline = time.monotonic() + self.patience_s
        while (out := provider.tail(job)[0]).count(text) < times and time.monotonic() < deadline:
            time.sleep(self.poll_s)
        return out

    def patiently(self, ask: Callable[[], list[T]]) -> list[T]:
        """Return the first answer that is not empty, asking for up to ``patience_s`` seconds while it is."""
        deadline = time.monotonic() + self.patience_s
        while True:
            try:
                answer = ask()
            except SchedulerUnavailable:
                answer = []
            if answer or time.monotonic() > deadline:
                return answer
            time.sleep(self.poll_s)

    @contextmanager
    def surely_ended(self, provider: ExecutionProvider, jobs: Sequence[str]) -> Iterator[None]:
        """Cancel the jobs at the end of the block, whether the test passes or fails."""
        try:
            yield
        finally:
            provider.cancel(jobs)
