"""GridEngineProvider on a real Grid Engine of one host."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from flow_providers.channels.local import LocalChannel
from flow_providers.cluster.gridengine.provider import GridEngineProvider
from flow_providers.errors import SchedulerUnavailable, SubmitException
from flow_providers.interfaces.job_state import JobState
from flow_providers.testing.contract import ProviderContract

pytestmark = [pytest.mark.services, pytest.mark.timeout(120)]


@pytest.fixture
def channel(gridengine: dict[str, str], tmp_path: Path) -> LocalChannel:
    return LocalChannel(userhome=str(tmp_path), envs=gridengine, script_dir=str(tmp_path / "scripts"))


@pytest.fixture
def provider(channel: LocalChannel) -> Iterator[GridEngineProvider]:
    provider = GridEngineProvider(channel=channel)
    provider.fresh_s = 0.2
    yield provider
    provider.cancel(provider.find(""))


class TestGridEngineProvider(ProviderContract):
    @pytest.fixture
    def provider(self, provider: GridEngineProvider) -> GridEngineProvider:  # type: ignore[override]  # narrowed
        return provider

    def test_a_job_that_cannot_run_waits_with_the_schedulers_letters(self, channel: LocalChannel) -> None:
        provider = GridEngineProvider(channel=channel, parallel_environment="smp", cores_per_node=99)
        job = provider.submit("true", 1)
        with self.surely_ended(provider, [job]):
            status = self.until(provider, job, lambda status: bool(status.reason))
            assert (status.state, status.reason) == (JobState.PENDING, "qw")

    def test_what_a_cancelled_job_had_started_is_gone(self, provider: GridEngineProvider, tmp_path: Path) -> None:
        job = provider.submit("sleep 987 & echo $! > child; sleep 987", 2)
        with self.surely_ended(provider, [job]):
            child = tmp_path / "child"
            self.until(provider, job, lambda status: child.exists() and child.read_text() != "")
        self.until_ended(provider, job)
        started = int(child.read_text())
        self.patiently(lambda: [] if psutil.pid_exists(started) else [1])
        assert not psutil.pid_exists(started) or psutil.Process(started).status() == psutil.STATUS_ZOMBIE

    def test_a_held_job_is_held(self, channel: LocalChannel) -> None:
        provider = GridEngineProvider(channel=channel, scheduler_options="#$ -h")
        job = provider.submit("true", 1)
        with self.surely_ended(provider, [job]):
            assert self.until(provider, job, lambda status: bool(status.reason)).state is JobState.HELD

    def test_a_broken_job_says_how_to_find_out_why(self, channel: LocalChannel) -> None:
        provider = GridEngineProvider(channel=channel, scheduler_options="#$ -wd /nowhere/at/all")
        job = provider.submit("true", 1)
        with self.surely_ended(provider, [job]):
            status = self.until(provider, job, lambda status: status.state is JobState.HELD)
            assert "qstat -j" in status.message

    def test_a_job_is_ended_at_its_walltime(self, channel: LocalChannel) -> None:
        provider = GridEngineProvider(channel=channel, walltime="00:00:03")
        assert self.until_ended(provider, provider.submit("sleep 600", 1)).state is JobState.TIMEOUT

    def test_a_running_job_tells_its_node_and_its_end(self, provider: GridEngineProvider) -> None:
        job = provider.submit("sleep 600", 1)
        with self.surely_ended(provider, [job]):
            status = self.until(provider, job, lambda status: status.started_at is not None)
            assert status.nodes == (os.uname().nodename,)
            assert status.ends_at == (status.started_at or 0) + 600

    def test_slots_of_a_parallel_environment_are_asked_for(self, channel: LocalChannel) -> None:
        provider = GridEngineProvider(channel=channel, parallel_environment="smp", cores_per_node=3)
        job = provider.submit("echo $NSLOTS $FLOW_CORES", 1)
        assert self.until_ended(provider, job).state is JobState.COMPLETED
        assert self.output_with(provider, job, "\n") == "3 3\n"

    def test_a_wrong_queue_is_refused_in_the_schedulers_words(self, channel: LocalChannel) -> None:
        provider = GridEngineProvider(channel=channel, queue="nowhere.q")
        with pytest.raises(SubmitException, match=r"nowhere\.q"):
            provider.submit("true", 1)

    def test_two_hundred_jobs_are_submitted_and_seen_to_their_end(self, provider: GridEngineProvider) -> None:
        self.patience_s = 100
        jobs = [provider.submit("true", 1) for _ in range(200)]
        for job in jobs:
            assert self.until_ended(provider, job).state is JobState.COMPLETED

    def test_a_scheduler_that_is_away_leaves_the_states_unchanged(
        self, provider: GridEngineProvider, gridengine: dict[str, str]
    ) -> None:
        job = provider.submit("sleep 600", 1)
        self.until(provider, job, lambda status: status.state is JobState.RUNNING)
        pid = int((Path(gridengine["SGE_ROOT"]).parent / "spool/qmaster/qmaster.pid").read_text())
        os.kill(pid, signal.SIGSTOP)
        try:
            provider.cmd_timeout = 1
            with pytest.raises(SchedulerUnavailable):
                provider.status([job, "123456"])
        finally:
            os.kill(pid, signal.SIGCONT)
            provider.cmd_timeout = 30
        assert self.until(provider, job, lambda status: True).state is JobState.RUNNING
