"""SlurmProvider on a real Slurm of four nodes."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from flow_providers.channels.local import LocalChannel
from flow_providers.cluster.slurm.provider import SlurmProvider
from flow_providers.errors import SchedulerUnavailable, SubmitException
from flow_providers.interfaces.job_extras import JobExtras
from flow_providers.interfaces.job_state import JobState
from flow_providers.interfaces.provider import NodeUse
from flow_providers.jobs.tag import new_tag
from flow_providers.launchers import SrunLauncher, SrunMPILauncher
from flow_providers.spec import provider_from, spec_of
from flow_providers.testing.contract import ProviderContract

pytestmark = [pytest.mark.services, pytest.mark.timeout(120)]


@pytest.fixture
def channel(slurm: dict[str, str], tmp_path: Path) -> LocalChannel:
    return LocalChannel(userhome=str(tmp_path), envs=slurm, script_dir=str(tmp_path / "scripts"))


@pytest.fixture
def provider(channel: LocalChannel) -> Iterator[SlurmProvider]:
    provider = SlurmProvider("debug", channel=channel, exclusive=False)
    provider.fresh_s = 0.2
    yield provider
    provider.cancel(provider.find(""))


class TestSlurmProvider(ProviderContract):
    @pytest.fixture
    def provider(self, provider: SlurmProvider) -> SlurmProvider:  # type: ignore[override]  # the module's, narrowed
        return provider

    def test_a_job_that_cannot_run_waits_with_the_schedulers_reason(self, channel: LocalChannel) -> None:
        provider = SlurmProvider("debug", channel=channel, nodes_per_block=9)
        job = provider.submit("true", 1)
        with self.surely_ended(provider, [job]):
            status = self.until(provider, job, lambda status: bool(status.reason))
            assert status.state is JobState.PENDING
            assert status.reason.startswith("Partition")

    def test_what_a_cancelled_job_had_started_is_gone(self, provider: SlurmProvider, tmp_path: Path) -> None:
        job = provider.submit("sleep 987 & echo $! > child; sleep 987", 2)
        with self.surely_ended(provider, [job]):
            child = tmp_path / "child"
            self.until(provider, job, lambda status: child.exists() and child.read_text() != "")
        self.until_ended(provider, job)
        started = int(child.read_text())
        self.patiently(lambda: [] if psutil.pid_exists(started) else [1])
        assert not psutil.pid_exists(started) or psutil.Process(started).status() == psutil.STATUS_ZOMBIE

    def test_a_held_job_is_held(self, channel: LocalChannel) -> None:
        provider = SlurmProvider("debug", channel=channel, scheduler_options="#SBATCH --hold")
        job = provider.submit("true", 1)
        with self.surely_ended(provider, [job]):
            assert self.until(provider, job, lambda status: bool(status.reason)).state is JobState.HELD

    def test_a_running_job_tells_its_nodes_and_its_end(self, channel: LocalChannel) -> None:
        provider = SlurmProvider("debug", channel=channel, nodes_per_block=2, walltime="01:00:00")
        job = provider.submit("sleep 600", 1)
        with self.surely_ended(provider, [job]):
            status = self.until(provider, job, lambda status: status.state is JobState.RUNNING)
            assert len(status.nodes) == 2
            assert status.started_at is not None
            assert status.ends_at == pytest.approx(status.started_at + 3600, abs=2)

    def test_a_job_killed_by_a_signal_says_which(self, provider: SlurmProvider) -> None:
        status = self.until_ended(provider, provider.submit("kill -9 $$; sleep 1", 1))
        assert (status.state, status.exit_code) == (JobState.FAILED, 137)

    def test_srun_starts_the_command_on_every_node(self, channel: LocalChannel) -> None:
        provider = SlurmProvider("debug", channel=channel, nodes_per_block=2, launcher=SrunLauncher())
        job = provider.submit("echo on $SLURMD_NODENAME of $SLURM_NNODES", 2)
        assert self.until_ended(provider, job).state is JobState.COMPLETED
        lines = {line.split(": ")[1] for line in self.output_with(provider, job, "on", 4).splitlines()}
        assert len(lines) == 2
        assert len(self.output_with(provider, job, "on", 4).splitlines()) == 4

    def test_independent_sruns_can_run_sruns_of_their_own(self, channel: LocalChannel) -> None:
        provider = SlurmProvider("debug", channel=channel, nodes_per_block=2, launcher=SrunMPILauncher())
        job = provider.submit("srun --overlap -n1 -N1 -w $SLURMD_NODENAME echo inner", 1)
        assert self.until_ended(provider, job).state is JobState.COMPLETED
        assert self.output_with(provider, job, "inner", 2).count("inner") == 2

    def test_cores_and_memory_are_asked_for_and_told(self, channel: LocalChannel) -> None:
        provider = SlurmProvider("debug", channel=channel, cores_per_node=3, mem_per_node=0.5, exclusive=False)
        job = provider.submit("echo $FLOW_CORES $FLOW_MEMORY_GB $SLURM_CPUS_PER_TASK $SLURM_MEM_PER_NODE", 1)
        self.until_ended(provider, job)
        assert self.output_with(provider, job, "\n") == "3 0.5 3 512\n"

    def test_what_a_command_uses_of_shared_nodes_is_asked_for(self, channel: LocalChannel) -> None:
        provider = SlurmProvider("debug", channel=channel, exclusive=False)
        provider.expected_use = NodeUse(3, 0.5)
        job = provider.submit("echo $FLOW_CORES $SLURM_CPUS_ON_NODE $SLURM_MEM_PER_NODE", 1)
        self.until_ended(provider, job)
        assert self.output_with(provider, job, "\n") == "3 3 512\n"

    def test_a_wrong_partition_is_refused_in_the_schedulers_words(self, channel: LocalChannel) -> None:
        provider = SlurmProvider("nowhere", channel=channel)
        with pytest.raises(SubmitException, match="invalid partition"):
            provider.submit("true", 1)

    def test_two_hundred_jobs_are_submitted_and_seen_to_their_end(self, provider: SlurmProvider) -> None:
        jobs = [provider.submit("true", 1) for _ in range(200)]
        for job in jobs:
            assert self.until_ended(provider, job).state is JobState.COMPLETED

    def test_the_heir_of_a_driver_asks_for_its_jobs(self, provider: SlurmProvider) -> None:
        tag = new_tag()  # the queue remembers the jobs of other sessions too
        job = provider.submit("sleep 600", 1, extras=JobExtras(tag=tag))
        with self.surely_ended(provider, [job]):
            heir = provider_from(spec_of(provider, secrets=True), trusted=True)
            assert self.patiently(lambda: heir.find(tag[:-2])) == [job]
            assert heir.status([job])[0].state in {JobState.PENDING, JobState.RUNNING}
            assert heir.cancel([job]) == [True]
            assert self.until_ended(heir, job).state is JobState.CANCELLED

    def test_a_job_purged_while_nobody_looked_is_found_in_the_log(
        self, provider: SlurmProvider, slurm: dict[str, str]
    ) -> None:
        job = provider.submit("exit 5", 1)
        self.until_ended(provider, job)
        log = Path(slurm["SLURM_CONF"]).parent / "jobcomp.txt"
        old = "424242"
        record = next(line for line in log.read_text().splitlines() if line.startswith(f"JobId={job} "))
        with log.open("a") as file:
            file.write(record.replace(f"JobId={job} ", f"JobId={old} ") + "\n")
        assert provider.status([old])[0].exit_code == 5

    def test_a_scheduler_that_is_away_leaves_the_states_unchanged(
        self, provider: SlurmProvider, slurm: dict[str, str]
    ) -> None:
        job = provider.submit("sleep 600", 1)
        self.until(provider, job, lambda status: status.state is JobState.RUNNING)
        pid = int((Path(slurm["SLURM_CONF"]).parent / "slurmctld.pid").read_text())
        os.kill(pid, signal.SIGSTOP)
        try:
            provider.cmd_timeout = 1
            with pytest.raises(SchedulerUnavailable):
                self.never_fresh(provider, job)
        finally:
            os.kill(pid, signal.SIGCONT)
            provider.cmd_timeout = 30
        assert self.until(provider, job, lambda status: True).state is JobState.RUNNING

    @staticmethod
    def never_fresh(provider: SlurmProvider, job: str) -> None:
        provider.status([job, "123456"])


def test_a_scheduler_that_is_not_installed_is_named(tmp_path: Path) -> None:
    bash = subprocess.run(["which", "bash"], capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "bash").symlink_to(bash)
    provider = SlurmProvider(
        channel=LocalChannel(userhome=str(tmp_path), envs={"PATH": str(tmp_path / "bin")}, script_dir=str(tmp_path))
    )
    with pytest.raises(SubmitException, match=r"sbatch.*not found"):
        provider.submit("true", 1)
